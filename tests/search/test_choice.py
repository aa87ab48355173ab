"""The front, the answer to "which one", and the nearest miss, on made-up figures."""

from __future__ import annotations

import pytest

from pipelines.search.choice import (
    Wishes,
    choose,
    front_of,
    nearest_miss,
    rank_correlation,
    rows_of,
)
from tests.tiny_board import result, variant


def named(rows) -> list[str]:
    return [f"{row.result.cell.backbone} {row.precision}" for row in rows]


@pytest.fixture
def rows():
    return rows_of(
        [
            # Accurate and large; its int8 is as accurate, quicker and smaller: fp32 is beaten.
            result("big", variant(0.95, 2.0, 9), variant(0.95, 1.0, 3, recall=0.8), 300),
            # Quickest and smallest.
            result("small", variant(0.90, 0.5, 2), variant(0.89, 0.2, 1), 100),
            # Slower, larger and less accurate than big's int8.
            result("poor", variant(0.80, 1.5, 8), variant(0.80, 1.1, 4), 200),
            # Would win, but may not be shipped: a clock that ran wild, and an int8 that differs.
            result(
                "odd",
                variant(0.99, 0.1, 1, steady=False),
                variant(0.99, 0.1, 1),
                50,
                missed=("agreement with fp32 50.0 % (bound 98.0 %)",),
            ),
        ]
    )


def test_front_has_what_nothing_else_is_better_than_and_nothing_that_was_refused(rows):
    assert named(front_of(rows)) == ["big int8", "small fp32", "small int8"]
    refused = {f"{r.result.cell.backbone} {r.precision}": r.refusal for r in rows if r.refusal}
    assert refused == {
        "odd fp32": "latency refused: two passes differ by 40% after 6",
        "odd int8": "int8 misses on val: agreement with fp32 50.0 % (bound 98.0 %)",
    }


def test_of_two_that_are_alike_in_all_both_are_on_the_front():
    twins = rows_of([result("a", variant(0.9, 1, 1), variant(0.9, 1, 1))])
    assert len(front_of(twins)) == 2


def test_ms_is_the_ratio_times_the_boards_one_reference():
    slow_hour = result("a", variant(0.9, 1.0, 1, reference_ms=90), variant(0.9, 0.5, 1))
    other = result("b", variant(0.9, 2.0, 1), variant(0.9, 3.0, 1, reference_ms=11, steady=False))
    assert [row.ms for row in rows_of([slow_hour, other])] == [10.0, 5.0, 20.0, None]


@pytest.mark.parametrize(
    ("wishes", "best", "runner_up"),
    [
        (Wishes(), "big int8", "small fp32"),
        (Wishes(max_ms=9.99), "small fp32", "small int8"),
        (Wishes(max_ms=10), "big int8", "small fp32"),
        (Wishes(max_mb=1), "small int8", None),
        # Among those that hold, what was beaten is the best.
        (Wishes(min_recall={"red_tile": 0.9}), "big fp32", "small fp32"),
        (Wishes(max_ms=9, max_mb=1.5), "small int8", None),
    ],
)
def test_choice_is_the_most_accurate_that_holds(rows, wishes, best, runner_up):
    choice = choose(rows, wishes)
    assert named([choice.best]) == [best]
    assert (named([choice.runner_up])[0] if choice.runner_up else None) == runner_up


@pytest.mark.parametrize(
    ("wishes", "nearest", "has"),
    [
        (Wishes(max_ms=0.1), "small int8", "2 ms"),
        (Wishes(max_mb=0.5), "small int8", "1 MB"),
        (Wishes(min_recall={"red_tile": 0.95}), "big fp32", "recall of red_tile 0.900"),
        # 5 % too large is nearer than 300 % too slow.
        (Wishes(max_ms=5, max_mb=0.95), "small int8", "1 MB"),
        (Wishes(min_recall={"green_tile": 0.5}), "big int8", "no test image of green_tile"),
    ],
)
def test_nothing_that_holds_names_the_nearest_miss(rows, wishes, nearest, has):
    assert choose(rows, wishes) is None
    row, words = nearest_miss(rows, wishes)
    assert (named([row]), words) == ([nearest], has)


def test_without_a_steady_row_there_is_no_choice_and_no_miss():
    rows = rows_of([result("a", *[variant(0.9, 1, 1, steady=False)] * 2)])
    assert choose(rows, Wishes()) is None
    assert nearest_miss(rows, Wishes(max_ms=1)) is None


def test_rank_correlation_is_of_steady_rows_of_one_precision(rows):
    # fp32: 300, 100, 200 million take 20, 5, 15 ms.
    assert rank_correlation(rows, "fp32") == pytest.approx(1.0)
    # int8: 300, 100, 200, 50 million take 10, 2, 11, 1 ms: two of them change places.
    assert rank_correlation(rows, "int8") == pytest.approx(0.8)
    assert rank_correlation(rows[:4], "int8") is None, "two points always have an order"

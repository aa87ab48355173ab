from __future__ import annotations

import time

import pytest

from pipelines.export.latency import paired_ms, speedup


@pytest.mark.parametrize(("n_in_a_row", "turns"), [(1, "ababababab"), (2, "aabbaabbab")])
def test_calls_take_turns(n_in_a_row, turns):
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = paired_ms(calls, n_runs=5, n_in_a_row=n_in_a_row)
    assert "".join(order[-10:]) == turns
    # Each warmed up before anything was counted.
    assert order[:-10].count("a") == order[:-10].count("b") >= 1
    assert {name: len(each) for name, each in times.items()} == {"a": 5, "b": 5}


def test_times_are_milliseconds():
    times = paired_ms({"nap": lambda: time.sleep(0.003)}, n_runs=3)
    assert all(3 <= each < 500 for each in times["nap"])


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        ([2, 2, 2], [1, 1, 1], 2.0),
        # one moment of a busy machine changes nothing
        ([2, 2, 200], [1, 1, 1], 2.0),
        # nor does a machine that is slow for both
        ([2, 20, 2], [1, 10, 1], 2.0),
        ([1, 1], [2, 2], 0.5),
    ],
)
def test_speedup_is_the_median_of_pairs(slow, fast, expected):
    assert speedup(slow, fast) == expected

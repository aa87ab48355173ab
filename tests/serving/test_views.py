from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.serving.predictor import combine

SHARES = st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda row: sum(row) > 0.01)


def as_view(row: list[float]) -> dict[str, float]:
    return {label: share / sum(row) for label, share in zip("abc", row, strict=True)}


def test_two_views_by_hand():
    # Geometric means: sqrt(0.8 x 0.4) = 0.566 and sqrt(0.2 x 0.6) = 0.346.
    shares = combine([{"a": 0.8, "b": 0.2}, {"a": 0.4, "b": 0.6}])
    assert shares["a"] == pytest.approx(math.sqrt(0.32) / (math.sqrt(0.32) + math.sqrt(0.12)))


@given(SHARES)
def test_one_view_gives_its_own_probabilities(row):
    view = as_view(row)
    assert combine([view]) == pytest.approx(view, abs=1e-5)


@given(st.lists(SHARES, min_size=1, max_size=6))
def test_order_does_not_matter_and_shares_add_up_to_one(rows):
    views = [as_view(row) for row in rows]
    shares = combine(views)
    assert sum(shares.values()) == pytest.approx(1)
    assert combine(views[::-1]) == pytest.approx(shares)


def test_view_that_is_sure_of_nothing_changes_no_order():
    even = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    shares = combine([{"a": 0.6, "b": 0.3, "c": 0.1}, even])
    assert sorted(shares, key=shares.__getitem__) == ["c", "b", "a"]


def test_probability_of_zero_does_not_veto():
    views = [{"a": 0.0, "b": 1.0}] + [{"a": 0.99999, "b": 0.00001}] * 5
    assert combine(views)["a"] > 0.99


@pytest.mark.parametrize("views", [[], [{"a": 1.0}, {"b": 1.0}]])
def test_no_view_and_other_labels_are_refused(views):
    with pytest.raises(ValueError, match="expected"):
        combine(views)

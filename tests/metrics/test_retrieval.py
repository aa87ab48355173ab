"""Against plain loops that do what the definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import DataError
from pipelines.metrics.intervals import draw
from pipelines.metrics.retrieval import (
    bound_for,
    check_asked,
    equal_error_rates,
    error_rates,
    expected_recall,
    map_at_r,
    pairs_of,
    ranked,
    rates_at,
    recall_at,
    resampled_rates,
)


def made(seed: int, n: int = 14) -> tuple[np.ndarray, np.ndarray]:
    """Distances and (identity, occasion) of a few pictures."""
    rng = np.random.default_rng(seed)
    half = np.triu(rng.random((n, n)), 1)
    identity, occasion = rng.integers(0, 4, n), rng.integers(0, 9, n)
    return half + half.T, np.stack([identity, 100 * identity + occasion], axis=1)


def others(distance: np.ndarray, known: np.ndarray, row: int) -> list[int]:
    """The pictures of other occasions, the nearest first."""
    left = [i for i in range(len(known)) if known[i, 1] != known[row, 1]]
    return sorted(left, key=lambda i: (distance[row, i], i))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_recall_and_map_at_r_are_those_of_plain_loops(seed, k):
    distance, known = made(seed)
    hits, precision = recall_at(distance, known, k), map_at_r(distance, known)
    for row in range(len(known)):
        near = others(distance, known, row)
        right = [known[i, 0] == known[row, 0] for i in near]
        if not any(right):
            assert np.isnan(hits[row])
            assert np.isnan(precision[row])
            continue
        assert hits[row] == any(right[:k])
        n_right = sum(right)
        reached = [sum(right[: i + 1]) / (i + 1) for i in range(n_right) if right[i]]
        assert precision[row] == pytest.approx(sum(reached) / n_right)


def test_pictures_of_one_occasion_are_no_neighbours():
    known = np.array([[1, 1], [1, 1], [1, 2], [2, 3]])
    distance = np.array(
        [[0, 0.1, 0.4, 0.2], [0.1, 0, 0.5, 0.6], [0.4, 0.5, 0, 0.3], [0.2, 0.6, 0.3, 0]]
    )
    assert ranked(distance, known, 3).tolist() == [[3, 2, -1], [2, 3, -1], [3, 0, 1], [0, 2, 1]]
    assert recall_at(distance, known, 1)[:3].tolist() == [0, 1, 0]
    # Nothing is asked of the one that is alone.
    assert np.isnan(recall_at(distance, known, 1)[3])


def test_of_equally_near_ones_each_may_be_the_nearest():
    known = np.array([[1, 1], [1, 2], [2, 3], [2, 4], [2, 5]])
    chance = expected_recall(np.zeros((5, 5)), known)
    assert chance.tolist() == [0.25, 0.25, 0.5, 0.5, 0.5]
    distance, known = made(3)
    np.testing.assert_array_equal(expected_recall(distance, known), recall_at(distance, known, 1))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_error_rates_are_those_of_counting(seed):
    distance, known = made(seed)
    pairs = pairs_of(distance, known)
    matches, misses = (rate[0] for rate in error_rates(pairs))
    for place, bound in enumerate(pairs.distance):
        near = pairs.distance <= bound
        assert matches[place] == pytest.approx(near[~pairs.is_same].mean())
        if pairs.is_same.any():
            assert misses[place] == pytest.approx(1 - near[pairs.is_same].mean())
    both = [rate[0] for rate in rates_at(pairs, 0.5)]
    assert both[0] == pytest.approx((pairs.distance <= 0.5)[~pairs.is_same].mean())


def test_equal_error_rate_by_hand():
    # Of four pairs of one identity one lies beyond, of four of two one before the bound.
    distance = np.array([0.1, 0.2, 0.3, 0.45, 0.5, 0.6, 0.7, 0.8])
    pairs = pairs_of(*made(0)).__class__(
        distance,
        np.array([True, True, True, False, True, False, False, False]),
        np.arange(8),
        np.arange(8),
    )
    rate, bound = (found[0] for found in equal_error_rates(pairs))
    assert rate == pytest.approx(0.25)
    assert 0.45 <= bound < 0.6
    assert bound_for(pairs, 0.0) == 0.3
    assert bound_for(pairs, 0.25) == 0.5
    assert bound_for(pairs, None) == bound


def test_apart_identities_have_no_error_and_equal_vectors_half():
    known = np.array([[1, 1], [1, 2], [2, 3], [2, 4]])
    apart = np.where(known[:, :1] == known[:, 0], 0.1, 0.9)
    assert equal_error_rates(pairs_of(apart, known))[0][0] == 0
    assert equal_error_rates(pairs_of(np.full((4, 4), 0.3), known))[0][0] == pytest.approx(0.5)


def test_a_pair_counts_as_often_as_both_its_groups_are_drawn():
    distance, known = made(5, n=24)
    pairs = pairs_of(distance, known)
    draws = draw([str(each) for each in known[:, 0]], 200, 1)
    rates = resampled_rates(draws, pairs, 0.5)
    assert rates.eer[0] == equal_error_rates(pairs)[0][0]
    for row, times in enumerate(draws.times[:20], start=1):
        one, other = draws.place[pairs.one], draws.place[pairs.other]
        counts = np.where(one == other, times[one], times[one].astype(int) * times[other])
        same, near = np.repeat(pairs.is_same, counts), np.repeat(pairs.distance <= 0.5, counts)
        if (~same).any():
            assert rates.false_match[row] == pytest.approx(near[~same].mean())
        if same.any():
            assert rates.false_non_match[row] == pytest.approx(1 - near[same].mean())


def test_what_cannot_be_asked_is_one_clear_line():
    with pytest.raises(DataError, match="the test split: expected at least 2 identities"):
        check_asked(np.array([[1, 1], [2, 2]]), "the test split")
    with pytest.raises(DataError, match="the val split needs pairs"):
        bound_for(pairs_of(np.zeros((2, 2)), np.array([[1, 1], [2, 2]])), None)

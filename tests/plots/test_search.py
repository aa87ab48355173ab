"""The figures of a search: whatever it came to is drawn, the same bytes for the same."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.plots.search import WINDOW, Again, Spot, _best, _moving, front_figure, reward_figure
from tests.plots.test_board import pixels

SPOTS = [Spot(0.9, 0.5), Spot(0.8, 0.3)]
BASES = [Spot(0.88, 1.0, "mobilenet_v2, 224 px")]
ELITES = [Again(f"network {n}, 224 px", 0.9 + n / 1000, (0.5, 0.5 + n / 100)) for n in range(9)]
REWARDS = [[0.5, None, 0.7, 0.6], [None, None, 0.4, 0.9]]


@pytest.mark.parametrize("target", [0.75, None])
@pytest.mark.parametrize(
    ("asked", "elites", "bases"),
    [
        ({}, [], []),
        ({"random": []}, [], BASES),
        ({"reinforce": SPOTS}, ELITES[:1], BASES),
        ({"reinforce": SPOTS, "tpe": SPOTS, "nsga2": SPOTS, "random": SPOTS}, ELITES, BASES),
    ],
)
def test_any_front_is_drawn_and_the_same_one_alike(asked, elites, bases, target):
    drawn = [front_figure(asked, elites, bases, target, "leaves") for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert pixels(drawn[0]).shape[2] == 3


@pytest.mark.parametrize("baseline", [0.8, None])
@pytest.mark.parametrize(
    "rewards",
    [{}, {"tpe": [[]]}, {"tpe": REWARDS[1:]}, {"reinforce": REWARDS, "random": [[None, None]]}],
)
def test_any_study_has_its_curve(rewards, baseline):
    assert pixels(reward_figure(rewards, "leaves", baseline)).shape[2] == 3


def test_names_of_many_elites_get_room_of_their_own():
    few, many = (
        pixels(front_figure({"tpe": SPOTS}, ELITES[:n], BASES, 0.75, "leaves")).shape[0]
        for n in (1, 9)
    )
    assert many > few


def test_curves_are_the_best_so_far_and_the_mean_of_the_last_ones():
    values = np.array(REWARDS, dtype=float)
    np.testing.assert_allclose(_best(values), [[0.5, 0.5, 0.7, 0.7], [np.nan, np.nan, 0.4, 0.9]])
    np.testing.assert_allclose(_moving(values), [[0.5, 0.5, 0.6, 0.6], [np.nan, np.nan, 0.4, 0.65]])
    long = np.arange(200.0)[np.newaxis]
    long[0, 70] = np.nan
    expected = [np.nanmean(long[0, max(0, end - WINDOW) : end]) for end in range(1, 201)]
    np.testing.assert_allclose(_moving(long)[0], expected)

"""A painted background: whether, where and what, from a seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.augment import paint_background


def flat(height_px: int = 60, width_px: int = 80) -> np.ndarray:
    return np.full((height_px, width_px, 3), 77, dtype=np.uint8)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_share_of_none_is_the_very_picture(seed: int) -> None:
    pixels = flat()
    assert paint_background(pixels, 0.0, seed) is pixels


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_middle_is_kept_and_corners_are_painted(height_px: int, width_px: int, seed: int) -> None:
    pixels = flat(height_px, width_px)
    painted = paint_background(pixels, 1.0, seed)
    assert painted.shape == pixels.shape
    assert painted.dtype == np.uint8
    # Half the smallest axis less shift and soft edge is kept, whatever was drawn; of fewer pixels
    # than eight none lies near enough to the middle.
    if min(height_px, width_px) >= 8:
        assert (painted[height_px // 2, width_px // 2] == 77).all()
    assert (pixels == 77).all()


def test_corners_are_painted() -> None:
    changed = [
        np.mean([(paint_background(flat(), 1.0, seed)[i, j] != 77).any() for seed in range(200)])
        for i in (0, -1)
        for j in (0, -1)
    ]
    assert min(changed) > 0.95


def test_same_seed_is_the_same_background() -> None:
    first, again, other = (paint_background(flat(), 1.0, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("share", [0.25, 0.7])
def test_as_many_are_painted_as_asked_for(share: float) -> None:
    pixels = flat(20, 20)
    n = 1500
    painted = sum(paint_background(pixels, share, seed) is not pixels for seed in range(n))
    # Five standard deviations.
    assert abs(painted / n - share) < 5 * np.sqrt(share * (1 - share) / n)


def test_background_no_longer_tells_the_label() -> None:
    """Two classes, told apart by the colour of their corners alone."""

    def corner(value: int, share: float) -> np.ndarray:
        pixels = np.full((40, 40, 3), value, dtype=np.uint8)
        return np.array(
            [
                paint_background(pixels, share, seed)[0, 0].mean()
                for seed in range(value, value + 300)
            ]
        )

    def best_threshold(share: float) -> float:
        dark, light = corner(100, share), corner(150, share)
        cuts = np.linspace(0, 255, 256)
        right = [((dark < cut).mean() + (light >= cut).mean()) / 2 for cut in cuts]
        return max(max(right), 1 - min(right))

    assert best_threshold(0.0) == 1.0
    assert best_threshold(1.0) < 0.65

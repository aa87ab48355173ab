"""Two thumbnails, laid over each other and compared place by place: the look that settles a pair.

Hashes of pictures that share most of what they show collide: parts under a fixed camera, the black
rim of an endoscope. Over the whole picture such a pair correlates too. So one thumbnail is moved
and stretched onto the other by a little, as a crop would need, and brightness and contrast are
taken out; then each small window is correlated by itself, and what differs is seen where it is.
Pure NumPy. Called by `pipelines.data.near_duplicates`.

References:
    Baker & Matthews 2004, "Lucas-Kanade 20 years on: a unifying framework", IJCV 56, section 3
    (steepest descent on the image's gradient). Keys 1981, "Cubic convolution interpolation for
    digital image processing", equation 15, a = -1/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.fingerprints import THUMBNAIL_PX

Floats = NDArray[np.float32]

#: Pairs at a time: some 40 MB.
BATCH = 128
_STEPS = 3
#: Furthest move and stretch, in pixels at the rim: beyond, the hashes differ anyway.
_FURTHEST_PX = 3.0
#: Left out at each side: what a crop pushed out of one picture cannot be compared.
_RIM_PX = 4
_WINDOW_PX, _STRIDE_PX = 9, 3
#: Grey levels squared; keeps what rounding and compression do to a flat window from counting.
_NOISE = 9.0
#: Levels at or beyond which a pixel is clipped, so that it says nothing.
_BLACK, _WHITE = 4, 251

_PLACE: Floats = ((np.arange(THUMBNAIL_PX) - (THUMBNAIL_PX - 1) / 2) / (THUMBNAIL_PX / 2)).astype(
    np.float32
)  # (s,) in [-1, 1]


def _windows() -> Floats:
    starts = range(_RIM_PX, THUMBNAIL_PX - _RIM_PX - _WINDOW_PX + 1, _STRIDE_PX)
    rows = np.zeros((len(starts), THUMBNAIL_PX), np.float32)
    for row, start in zip(rows, starts, strict=True):
        row[start : start + _WINDOW_PX] = 1 / _WINDOW_PX
    return rows


_MEANS = _windows()  # (w, s): means over the windows of a row of pixels
_INNER = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), np.float32)
_INNER[_RIM_PX:-_RIM_PX, _RIM_PX:-_RIM_PX] = 1


@dataclass(frozen=True, slots=True)
class Look:
    """What k pairs have in common, place by place.

    Attributes:
        least: (k,) correlation in the window where it is lowest, in [-1, 1].
        quartile: (k,) correlation that three quarters of the windows reach.
        residual: (k,) middle of the windows' root mean square difference, in grey levels.
        largest: (k,) the largest such difference.
    """

    least: Floats
    quartile: Floats
    residual: Floats
    largest: Floats


def look(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> Look:
    """A close look at pairs of thumbnails; which is left and which right may change a last digit.

    Args:
        left: (k, s²) grey levels.
        right: (k, s²) grey levels.
    """
    found = [
        _look(left[start : start + BATCH], right[start : start + BATCH])
        for start in range(0, len(left), BATCH)
    ]
    if not found:
        none = np.zeros(0, np.float32)
        return Look(none, none, none, none)
    return Look(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _look(
    left: NDArray[np.uint8], right: NDArray[np.uint8]
) -> tuple[Floats, Floats, Floats, Floats]:
    shape = (len(left), THUMBNAIL_PX, THUMBNAIL_PX)
    fixed, moved = left.reshape(shape).astype(np.float32), right.reshape(shape).astype(np.float32)
    laid = _laid_over(fixed, moved)
    is_said = ((fixed > _BLACK) & (fixed < _WHITE) & (moved > _BLACK) & (moved < _WHITE)).astype(
        np.float32
    )
    weight = _MEANS @ is_said @ _MEANS.T

    def mean(values: Floats) -> Floats:
        sums = _MEANS @ (values * is_said) @ _MEANS.T
        return (sums / np.maximum(weight, 0.1)).astype(np.float32)

    middle = fixed.mean(axis=(1, 2), keepdims=True)
    a, b = fixed - middle, laid - middle
    mean_a, mean_b = mean(a), mean(b)
    spread = np.maximum(mean(a * a) - mean_a**2, mean(b * b) - mean_b**2)
    common = mean(a * b) - mean_a * mean_b
    # The larger spread, not the root of both: what is in one picture alone must count.
    correlation = np.where(weight < 0.5, 1.0, (common + _NOISE) / (spread + _NOISE))
    windows = correlation.reshape(len(left), -1).astype(np.float32)
    difference = np.sqrt(np.maximum(mean((a - b) ** 2), 0)).reshape(len(left), -1)
    return (
        windows.min(axis=1),
        np.percentile(windows, 25, axis=1).astype(np.float32),
        np.median(difference, axis=1).astype(np.float32),
        difference.max(axis=1).astype(np.float32),
    )


def _laid_over(fixed: Floats, moved: Floats) -> Floats:
    """The second pictures moved, stretched, and brought to the contrast of the first."""
    k = len(fixed)
    down, across = np.gradient(fixed, axis=1), np.gradient(fixed, axis=2)
    slopes = np.stack(
        [
            across,
            across * _PLACE,
            down,
            down * _PLACE[:, np.newaxis],
            fixed,
            np.ones_like(fixed),
        ],
        axis=1,
    )
    slopes = (slopes * _INNER).reshape(k, 6, -1)
    # A ridge of 1 keeps a picture without texture solvable, and still.
    normal = (slopes @ slopes.transpose(0, 2, 1)).astype(np.float64) + np.eye(6)
    moves = np.zeros((k, 4))
    laid = _contrast(fixed, moved)
    for _ in range(_STEPS):
        error = ((fixed - laid) * _INNER).reshape(k, -1, 1)
        step = np.linalg.solve(normal, (slopes @ error).astype(np.float64))[:, :4, 0]
        moves = np.clip(moves + np.clip(step, -1, 1), -_FURTHEST_PX, _FURTHEST_PX)
        rows, columns = _resampling(moves[:, 2:]), _resampling(moves[:, :2])
        resampled: Floats = np.matmul(rows @ moved, columns.transpose(0, 2, 1))
        laid = _contrast(fixed, resampled)
    return laid


def _contrast(fixed: Floats, moved: Floats) -> Floats:
    """Gain and offset of least squares, over what lies inside the rim."""
    n = _INNER.sum()
    at_fixed = (fixed * _INNER).sum(axis=(1, 2), keepdims=True) / n
    at_moved = (moved * _INNER).sum(axis=(1, 2), keepdims=True) / n
    off = (moved - at_moved) * _INNER
    spread = (off * off).sum(axis=(1, 2), keepdims=True)
    gain = (off * (fixed - at_fixed)).sum(axis=(1, 2), keepdims=True) / np.maximum(spread, 1e-3)
    found: Floats = (gain * (moved - at_moved) + at_fixed).astype(np.float32)
    return found


def _resampling(moves: NDArray[np.float64]) -> Floats:
    """(k, s, s) that take a row of pixels to the same row moved and stretched, by cubics."""
    at = np.arange(THUMBNAIL_PX) + moves[:, :1] + moves[:, 1:] * _PLACE
    gap = np.abs(
        np.clip(at, 0, THUMBNAIL_PX - 1)[:, :, np.newaxis] - np.arange(THUMBNAIL_PX)
    ).astype(np.float32)
    near = (1.5 * gap - 2.5) * gap * gap + 1
    far = ((-0.5 * gap + 2.5) * gap - 4) * gap + 2
    weights = np.where(gap <= 1, near, np.where(gap < 2, far, 0))
    found: Floats = (weights / weights.sum(axis=2, keepdims=True)).astype(np.float32)
    return found

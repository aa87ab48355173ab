"""Resamples of whole groups, drawn once, and sums over them by one matrix product.

Pure NumPy; `pipelines.evaluation.intervals` says what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.evaluation.counts import Counts, Floats

#: Keeps these draws apart from others of the same seed.
_STREAM = 0x1A7E
#: Cells of the table of draws that are made at a time: 32 MB.
CELLS = 4_000_000

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Draws:
    """Which groups are in which resample; drawn once, used for every metric of the same images.

    Attributes:
        place: (n,) number of each image's group, in the order in which groups first appear.
        n_groups: g.
        times: (r, g) how often each group is in each resample; rows add up to g.
    """

    place: NDArray[np.int64]
    n_groups: int
    times: NDArray[np.uint16]


def draw(groups: Sequence[str] | NDArray[Any], resamples: int, seed: int) -> Draws:
    """Resamples of whole groups, with replacement; what the groups are called does not matter.

    Args:
        groups: (n,) group of each image, n > 0.
        resamples: r, e.g. 2000.
        seed: of params.yaml.

    Raises:
        DataError: if there is no image.
    """
    if not len(groups):
        raise DataError("an interval needs at least one image (got none).")
    _, first, inverse = np.unique(np.asarray(groups), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    g = len(first)
    rng = np.random.default_rng([seed, _STREAM])
    times = np.empty((resamples, g), np.uint16)
    step = max(1, CELLS // g)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(g, size=(rows, g)) + g * np.arange(rows)[:, np.newaxis]
        times[start : start + rows] = np.bincount(drawn.ravel(), minlength=rows * g).reshape(-1, g)
    return Draws(rank[inverse.reshape(-1)], g, times)


def resampled(draws: Draws, class_index: Integers, predicted: Integers, n_classes: int) -> Counts:
    """(1 + r, c) counts: of the images themselves, then of each resample.

    Args:
        draws: of these images.
        class_index: (n,) true classes.
        predicted: (n,) answers.
        n_classes: c.
    """
    true, answers = np.asarray(class_index), np.asarray(predicted)
    right = true == answers
    return Counts(
        right=_summed(draws, draws.place[right], true[right], n_classes),
        present=_summed(draws, draws.place, true, n_classes),
        answered=_summed(draws, draws.place, answers, n_classes),
    )


def _summed(draws: Draws, place: Integers, classes: Integers, c: int) -> Floats:
    """(1 + r, c) how many of some images, given by group and class, are in each resample."""
    cells = np.bincount(place * c + classes.astype(np.int64), minlength=draws.n_groups * c)
    return _resampled_sums(draws, cells.reshape(draws.n_groups, c).astype(np.float64))


def rows_summed(draws: Draws, rows: NDArray[Any]) -> Floats:
    """(1 + r, k) sums of rows: of the images themselves, then of each resample.

    Args:
        draws: of these images.
        rows: (n, k).
    """
    by_group = np.zeros((draws.n_groups, rows.shape[1]))
    np.add.at(by_group, draws.place, rows)
    return _resampled_sums(draws, by_group)


def _resampled_sums(draws: Draws, by_group: Floats) -> Floats:
    found = np.empty((1 + len(draws.times), by_group.shape[1]))
    found[0] = by_group.sum(axis=0)
    step = max(1, CELLS // draws.n_groups)
    for start in range(0, len(draws.times), step):
        times = draws.times[start : start + step]
        found[1 + start : 1 + start + len(times)] = times.astype(np.float64) @ by_group
    return found

"""Resamples of whole groups, drawn once, and the metrics of many sets of answers at once.

A metric needs of each class how often it was answered rightly, was there, and was answered: 3 c
numbers a resample, summed by one matrix product, where a confusion matrix has c². Values lie in
[0, 1] and are NaN where they are not defined. `pipelines.metrics.classification` has the same of
one matrix, `pipelines.metrics.intervals` says what resamples are for. Pure NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Counts:
    """r confusion matrices of c classes, in short.

    Attributes:
        right: (r, c) images of a class that were answered with it: the diagonal.
        present: (r, c) images of a class: sums of rows.
        answered: (r, c) images that were answered with a class: sums of columns.
    """

    right: Floats
    present: Floats
    answered: Floats


OfCounts = Callable[[Counts], Floats]


def accuracies(counts: Counts) -> Floats:
    """(r,) share of right answers."""
    return ratio(counts.right.sum(axis=1), counts.present.sum(axis=1))


def macro_f1s(counts: Counts) -> Floats:
    """(r,) mean F1 over the classes that are present or answered, as `metrics.macro_f1`."""
    return _mean_defined(ratio(2 * counts.right, counts.answered + counts.present))


def balanced_accuracies(counts: Counts) -> Floats:
    """(r,) mean recall over the classes that are present."""
    return _mean_defined(recalls(counts))


def recalls(counts: Counts) -> Floats:
    """(r, c) share of a class's images that are answered with it."""
    return ratio(counts.right, counts.present)


def precisions(counts: Counts) -> Floats:
    """(r, c) share of the answers of a class that are right."""
    return ratio(counts.right, counts.answered)


def specificities(counts: Counts) -> Floats:
    """(r, c) share of the other classes' images that are not answered with a class."""
    others = counts.present.sum(axis=1, keepdims=True) - counts.present
    return ratio(others - (counts.answered - counts.right), others)


def ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """One over the other; NaN where the other is 0.

    Args:
        part: any shape.
        whole: the same shape, at least 0.
    """
    parts = np.asarray(part, np.float64)
    found: Floats = np.full(parts.shape, np.nan)
    np.divide(parts, np.asarray(whole, np.float64), out=found, where=np.asarray(whole) > 0)
    return found


def _mean_defined(values: Floats) -> Floats:
    defined = np.isfinite(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


# -- resamples ------------------------------------------------------------------------------------
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

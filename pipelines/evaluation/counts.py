"""Metrics of many sets of answers at once, for the bootstrap, from what a class needs of each.

That is how often it was answered rightly, was there, and was answered: 3 c numbers a resample,
where a confusion matrix has c². Values lie in [0, 1] and are NaN where they are not defined.
`pipelines.evaluation.metrics` has the same of one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    """(r,) share of right answers.

    Args:
        counts: r sets.
    """
    return ratio(counts.right.sum(axis=1), counts.present.sum(axis=1))


def macro_f1s(counts: Counts) -> Floats:
    """(r,) mean F1 over the classes that are present or answered, as `metrics.macro_f1`.

    Args:
        counts: r sets.
    """
    return _mean_defined(ratio(2 * counts.right, counts.answered + counts.present))


def balanced_accuracies(counts: Counts) -> Floats:
    """(r,) mean recall over the classes that are present.

    Args:
        counts: r sets.
    """
    return _mean_defined(recalls(counts))


def recalls(counts: Counts) -> Floats:
    """(r, c) share of a class's images that are answered with it.

    Args:
        counts: r sets.
    """
    return ratio(counts.right, counts.present)


def precisions(counts: Counts) -> Floats:
    """(r, c) share of the answers of a class that are right.

    Args:
        counts: r sets.
    """
    return ratio(counts.right, counts.answered)


def specificities(counts: Counts) -> Floats:
    """(r, c) share of the other classes' images that are not answered with a class.

    Args:
        counts: r sets.
    """
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

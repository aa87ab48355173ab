"""Metrics of many confusion matrices at once, for the bootstrap.

Each takes (r, c, c) counts, true classes in rows and answers in columns, and gives (r,) values in
[0, 1], NaN where it is not defined. `pipelines.evaluation.metrics` has the same of one matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
OfCounts = Callable[[Floats], Floats]


def accuracies(counts: Floats) -> Floats:
    """Share of right answers.

    Args:
        counts: (r, c, c).
    """
    return ratio(np.trace(counts, axis1=1, axis2=2), counts.sum(axis=(1, 2)))


def macro_f1s(counts: Floats) -> Floats:
    """Mean F1 over the classes that are present or answered, as `metrics.macro_f1`.

    Args:
        counts: (r, c, c).
    """
    right = np.diagonal(counts, axis1=1, axis2=2)
    return _mean_defined(ratio(2 * right, counts.sum(axis=1) + counts.sum(axis=2)))


def balanced_accuracies(counts: Floats) -> Floats:
    """Mean recall over the classes that are present.

    Args:
        counts: (r, c, c).
    """
    right = np.diagonal(counts, axis1=1, axis2=2)
    return _mean_defined(ratio(right, counts.sum(axis=2)))


def recalls(index: int) -> OfCounts:
    """Metric: share of one class's images that are answered with it.

    Args:
        index: of the class.
    """
    return lambda counts: ratio(counts[:, index, index], counts[:, index].sum(axis=1))


def precisions(index: int) -> OfCounts:
    """Metric: share of the answers of one class that are right.

    Args:
        index: of the class.
    """
    return lambda counts: ratio(counts[:, index, index], counts[:, :, index].sum(axis=1))


def specificities(index: int) -> OfCounts:
    """Metric: share of the other classes' images that are not answered with one class.

    Args:
        index: of the class.
    """

    def metric(counts: Floats) -> Floats:
        others = counts.sum(axis=(1, 2)) - counts[:, index].sum(axis=1)
        wrong = counts[:, :, index].sum(axis=1) - counts[:, index, index]
        return ratio(others - wrong, others)

    return metric


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

"""Area under the ROC curve with its interval, from one sorting of the images.

A resample only changes how often an image counts, so the images are sorted once and weighted.
Called by `pipelines.metrics.certainty`.

References:
    Hanley & McNeil 1982, "The meaning and use of the area under a receiver operating
    characteristic (ROC) curve", Radiology 143: the share of pairs that are in order, ties a half.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.intervals import SHARE, percentiles
from pipelines.metrics.resamples import Draws, Floats, ratio
from pipelines.serving.trust import Interval

#: Mean over the classes, and by class.
Areas = tuple[Interval | None, list[Interval | None]]
#: Weights that are held at a time: 32 MB.
_CELLS = 4_000_000
#: Groups for each class up to which all classes are done at once; both ways give the same numbers.
_GROUPS_A_CLASS = 50


def roc_auc(draws: Draws, class_index: NDArray[Any], probabilities: NDArray[Any]) -> Areas:
    """One class against the rest, for each class, and their mean.

    Args:
        draws: of these images.
        class_index: (n,) true classes.
        probabilities: (n, c).

    Returns:
        The mean over the classes, None unless each class is there and is not alone (as in
        `metrics.classification_metrics`); and (c) by class, None where it is not.
    """
    c = probabilities.shape[1]
    if draws.n_groups <= _GROUPS_A_CLASS * c:
        table = _all_areas(draws, class_index, probabilities)
    else:
        columns = [_areas(draws, class_index == k, probabilities[:, k]) for k in range(c)]
        table = np.stack(columns, axis=1)  # (1 + r, c), the images themselves first
    return _interval(draws, table.mean(axis=1)), [_interval(draws, column) for column in table.T]


def _interval(draws: Draws, areas: Floats) -> Interval | None:
    value = float(areas[0])
    if not np.isfinite(value):
        return None
    if draws.n_groups == 1:
        return Interval(value=value, low=SHARE[0], high=SHARE[1])
    return percentiles(value, areas[1:], SHARE)


def _all_areas(draws: Draws, class_index: NDArray[Any], probabilities: NDArray[Any]) -> Floats:
    """(1 + r, c) areas by comparing each image with all others, for many classes of few images.

    Each image is of one class, so all classes together need n comparisons with n images, and the
    resamples are a matrix product with them. Counts and halves of counts are exact in float32 up to
    2^23 images.
    """
    true, (n, c) = np.asarray(class_index, np.int64), probabilities.shape
    every = np.concatenate([np.ones((1, draws.n_groups)), draws.times]).astype(np.float32)
    in_order = np.zeros((len(every), c))
    step = max(1, _CELLS // max(len(every), n))
    for start in range(0, n, step):
        rows = np.arange(start, min(n, start + step))
        own = probabilities[:, true[rows]].T  # (m, n): what each image was given of this class
        at = probabilities[rows, true[rows]][:, np.newaxis]
        above = (own < at) + 0.5 * (own == at)
        above *= true != true[rows][:, np.newaxis]
        by_group = np.zeros((len(rows), draws.n_groups), np.float32)
        np.add.at(by_group.T, draws.place, above.T.astype(np.float32))
        pairs = (every @ by_group.T).astype(np.float64) * every[:, draws.place[rows]]
        np.add.at(in_order.T, true[rows], pairs.T)
    present = np.zeros((draws.n_groups, c), np.float32)
    np.add.at(present, (draws.place, true), 1)
    yes = (every @ present).astype(np.float64)
    return ratio(in_order, yes * (yes.sum(axis=1, keepdims=True) - yes))


def _areas(draws: Draws, is_positive: NDArray[np.bool_], scores: NDArray[Any]) -> Floats:
    """(1 + r,) the area of the images themselves, then of each resample; NaN where undefined."""
    order = np.argsort(scores, kind="stable")
    positive = is_positive[order].astype(np.float64)
    ties = np.flatnonzero(np.diff(scores[order], prepend=scores[order[0]] - 1.0))
    place = draws.place[order]
    found = [_weighted(np.ones((1, len(order))), positive, ties)]
    step = max(1, _CELLS // len(order))
    for start in range(0, len(draws.times), step):
        weights = draws.times[start : start + step, place].astype(np.float64)
        found.append(_weighted(weights, positive, ties))
    return np.concatenate(found)


def _weighted(weights: Floats, positive: Floats, ties: NDArray[np.intp]) -> Floats:
    """(r,) areas for (r, n) weights of images that are sorted by score; ties start where told."""
    yes = np.add.reduceat(weights * positive, ties, axis=1)
    no = np.add.reduceat(weights * (1 - positive), ties, axis=1)
    below = np.cumsum(no, axis=1) - no
    return ratio((yes * (below + no / 2)).sum(axis=1), yes.sum(axis=1) * no.sum(axis=1))

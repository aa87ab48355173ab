"""How well boxes are found: average precision, what it is worth at one threshold, and counts.

Boxes are matched as COCO does: the most certain first, each with the true box of its label that is
free and overlaps it most. Average precision is the mean over 101 levels of recall of the best
precision at that recall or beyond. ``found`` is (n, k, 6) with corners, score and number of the
label, and rows of score 0 are none; ``truth`` is (n, t, 5) with corners and number, NaN where there
is none. Units are any that both share.

A resample of groups (`pipelines.metrics.intervals`) changes how often an image counts and never
which box matches which, so that all resamples are a product of matrices.

References:
    Lin et al. 2014, "Microsoft COCO: common objects in context", and cocoapi's COCOeval, here with
    as many boxes an image as the model tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.intervals import Draws, areas

Floats = NDArray[np.float64]

#: Overlaps from which on a box is right: AP is the mean over them, AP50 that of the first.
OVERLAPS = np.linspace(0.5, 0.95, 10)
#: Of what is called small, medium and large, the least and the largest area of a box in square px.
SIZES: Mapping[str, tuple[float, float]] = {
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, math.inf),
}
_ALL = (0.0, math.inf)
#: Of the true counts, the share that may lie below a band, and above it.
_TAIL = 0.025
#: Of recall, to the last bit those of cocoapi: some recalls lie on one.
_LEVELS = np.linspace(0, 1, 101)
#: Cells of the tables of resamples that are held at a time: 32 MB each.
_CELLS = 4_000_000


def overlaps(a: NDArray[np.floating], b: NDArray[np.floating]) -> Floats:
    """(k, m) intersection over union of (k, 4) and (m, 4) boxes."""
    a, b = a[:, None].astype(np.float64), b[None].astype(np.float64)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inner = np.clip(sides, 0, None).prod(axis=-1)
    whole = [(each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (a, b)]
    found: Floats = inner / np.maximum(whole[0] + whole[1] - inner, 1e-12)
    return found


@dataclass(frozen=True, slots=True)
class Matches:
    """What became of the boxes of one label, the most certain first; d boxes, n images.

    Attributes:
        image: (d,) which image each is in.
        score: (d,).
        is_hit: (o, d) whether it matches, at each of the overlaps that were asked for.
        is_left_out: (o, d) whether it is neither right nor wrong, being of another size than asked.
        n_true: (n,) true boxes of each image.
    """

    image: NDArray[np.int64]
    score: Floats
    is_hit: NDArray[np.bool_]
    is_left_out: NDArray[np.bool_]
    n_true: NDArray[np.int64]


def matches(
    found: NDArray[np.floating],
    truth: NDArray[np.floating],
    n_labels: int,
    at: NDArray[np.float64] = OVERLAPS,
    areas: tuple[float, float] = _ALL,
) -> list[Matches]:
    """By label, what became of each box.

    Args:
        at: (o,) overlaps from which on a box is right.
        areas: of the true boxes that are asked for, both included. What is found of another is
            left out, and so is what is nothing and of another area itself.
    """
    return [_matches(found, truth, label, at, areas) for label in range(n_labels)]


def _matches(
    found: NDArray[np.floating],
    truth: NDArray[np.floating],
    label: int,
    at: Floats,
    areas: tuple[float, float],
) -> Matches:
    images, scores = list[NDArray[np.int64]](), list[Floats]()
    hits, others = list[NDArray[np.bool_]](), list[NDArray[np.bool_]]()
    n_true = []
    for image, (rows, true) in enumerate(zip(found, truth, strict=True)):
        own = rows[(rows[:, 4] > 0) & (rows[:, 5] == label)]
        own = own[np.argsort(-own[:, 4], kind="stable")]
        images.append(np.full(len(own), image))
        scores.append(own[:, 4].astype(np.float64))
        true = true[true[:, 4] == label, :4]
        is_asked = _is_within(true, areas)
        n_true.append(int(is_asked.sum()))
        right, of_others = _matched(overlaps(own[:, :4], true), at, is_asked)
        hits.append(right)
        others.append(of_others | (~right & ~_is_within(own[:, :4], areas)))
    score = np.concatenate(scores)
    order = np.argsort(-score, kind="stable")
    return Matches(
        np.concatenate(images)[order],
        score[order],
        np.concatenate(hits, axis=1)[:, order],
        np.concatenate(others, axis=1)[:, order],
        np.array(n_true, dtype=np.int64),
    )


def _is_within(boxes: NDArray[np.floating], areas: tuple[float, float]) -> NDArray[np.bool_]:
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    area = sides.prod(axis=1)
    within: NDArray[np.bool_] = (area >= areas[0]) & (area <= areas[1])
    return within


def hits_of(shared: Floats, at: Floats) -> NDArray[np.bool_]:
    """(o, k) which boxes of an image match, each true box being matched once.

    Args:
        shared: (k, m) overlaps with its true boxes, the most certain first.
        at: (o,).
    """
    return _matched(shared, at, np.ones(shared.shape[1], dtype=bool))[0]


def _matched(
    shared: Floats, at: Floats, is_asked: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(o, k) which match a true box that is asked for, and which, having none, another one."""
    hits, others = np.zeros((2, len(at), len(shared)), dtype=bool)
    if not shared.size:
        return hits, others
    is_free = np.ones((len(at), shared.shape[1]), dtype=bool)
    levels = np.arange(len(at))
    turns = [(own, into) for own, into in ((is_asked, hits), (~is_asked, others)) if own.any()]
    for row in np.flatnonzero(shared.max(axis=1) >= at.min()):
        is_open = np.ones(len(at), dtype=bool)
        for own, into in turns:
            left = np.where(is_free & own, shared[row], -1.0)
            # Of equals the last, as cocoapi.
            best = shared.shape[1] - 1 - left[:, ::-1].argmax(axis=1)
            is_hit = is_open & (left[levels, best] >= np.minimum(at, 1 - 1e-10))
            into[:, row] = is_hit
            is_free[levels[is_hit], best[is_hit]] = False
            is_open &= ~is_hit
    return hits, others


def average_precision(of: Matches, draws: Draws | None = None) -> Floats:
    """(o, 1 + r) average precision of the images, then of each resample; NaN without true boxes."""
    place, times = _weights(draws, len(of.n_true))
    n_groups = times.shape[1]
    true = times @ np.bincount(place, of.n_true, minlength=n_groups)
    found = []
    for is_hit, is_left_out in zip(of.is_hit, of.is_left_out, strict=True):
        kept = ~is_left_out
        found.append(_areas(place[of.image[kept]], is_hit[kept], times, true))
    return np.stack(found)


def _weights(draws: Draws | None, n_images: int) -> tuple[NDArray[np.int64], Floats]:
    if draws is None:
        return np.zeros(n_images, dtype=np.int64), np.ones((1, 1))
    return draws.place, np.concatenate([np.ones((1, draws.n_groups)), draws.times])


def _areas(
    group: NDArray[np.int64], is_hit: NDArray[np.bool_], times: Floats, true: Floats
) -> Floats:
    """(1 + r,) of one overlap; only where a box is right can the best precision change."""
    at = np.flatnonzero(is_hit)
    found = np.where(true > 0, 0.0, np.nan)
    if not len(at):
        return found
    n_groups = times.shape[1]
    right = np.zeros((len(at), n_groups))
    right[np.arange(len(at)), group[at]] = 1
    wrong = np.zeros((len(at) + 1, n_groups))
    misses = np.flatnonzero(~is_hit)
    np.add.at(wrong, (np.searchsorted(at, misses), group[misses]), 1)
    right, wrong = right.cumsum(axis=0), wrong.cumsum(axis=0)[:-1]
    step = max(1, _CELLS // len(at))
    for start in range(0, len(times), step):
        rows = slice(start, start + step)
        hits, others = right @ times[rows].T, wrong @ times[rows].T  # (hits, resamples)
        precision = hits / np.maximum(hits + others, 1e-12)
        best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        recall = hits / np.maximum(true[rows], 1e-12)
        n_levels = np.searchsorted(_LEVELS, recall.ravel(), side="right").reshape(recall.shape)
        gained = np.diff(n_levels, axis=0, prepend=0)
        found[rows] += (best * gained).sum(axis=0) / len(_LEVELS)
    return found


def mean_over_labels(by_label: Sequence[Floats]) -> Floats:
    """The mean over the labels that have true boxes, of arrays of one shape; NaN where none has."""
    table = np.stack(by_label)
    is_defined = np.isfinite(table)
    n = is_defined.sum(axis=0)
    total = np.where(is_defined, table, 0).sum(axis=0)
    found: Floats = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return found


@dataclass(frozen=True, slots=True)
class Reached:
    """What boxes from a threshold on are worth, at the first of the overlaps."""

    threshold: float
    precision: float
    recall: float


def reached(of: Matches, threshold: float) -> Reached:
    """Precision and recall from a threshold on; 0 where nothing is told or nothing is there."""
    kept = of.score >= threshold
    n_hits = int((of.is_hit[0] & kept).sum())
    return Reached(
        threshold,
        n_hits / max(int(kept.sum()), 1),
        n_hits / max(int(of.n_true.sum()), 1),
    )


def best_point(of: Matches) -> Reached | None:
    """The threshold of the best F1; None where no box is right."""
    if not of.is_hit[0].any():
        return None
    hits = of.is_hit[0].cumsum()
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + of.n_true.sum())
    return reached(of, float(of.score[f1.argmax()]))


def counts(
    found: NDArray[np.floating], thresholds: Sequence[float], n_labels: int
) -> NDArray[np.int64]:
    """(n, n_labels) boxes that count.

    Args:
        thresholds: (n_labels,) from which score on they do.
    """
    each = [
        ((found[:, :, 5] == label) & (found[:, :, 4] >= max(thresholds[label], 1e-12))).sum(axis=1)
        for label in range(n_labels)
    ]
    return np.stack(each, axis=1)


def true_counts(truth: NDArray[np.floating], n_labels: int) -> NDArray[np.int64]:
    """(n, n_labels) true boxes."""
    return np.stack([(truth[:, :, 4] == label).sum(axis=1) for label in range(n_labels)], axis=1)


def count_band(missing: NDArray[np.int64]) -> tuple[int, int] | None:
    """What to add to a count, least and most, so that the true one is between in 95 % of pictures.

    True of pictures that are drawn as these are; None of fewer than 39, of which no two ends can be
    that sure.

    Args:
        missing: (n,) true boxes of a picture less those that count.

    References:
        Lei et al. 2018, "Distribution-free predictive inference for regression", split conformal.
    """
    n = len(missing)
    n_outside = int((n + 1) * _TAIL)
    if n_outside < 1:
        return None
    ordered = np.sort(missing)
    return int(ordered[n_outside - 1]), int(ordered[n - n_outside])


def best_scores(found: NDArray[np.floating], n_labels: int) -> Floats:
    """(n, n_labels) score of each image's most certain box of a label; 0 where there is none."""
    each = [
        np.where(found[:, :, 5] == label, found[:, :, 4], 0).max(axis=1)
        for label in range(n_labels)
    ]
    return np.stack(each, axis=1).astype(np.float64)


def agreement(
    one: NDArray[np.floating], other: NDArray[np.floating], thresholds: Sequence[float]
) -> Floats:
    """(n,) share of the boxes of two models that have a partner of their label in the other's.

    Partners overlap by half, and each is in one pair: of k and m boxes with p pairs, 2 p / (k + m).
    NaN where neither tells of any.

    Args:
        thresholds: by label, from which score on a box counts.
    """
    at = OVERLAPS[:1]
    shares = np.full(len(one), np.nan)
    for image, (a, b) in enumerate(zip(one, other, strict=True)):
        n_pairs = n_boxes = 0
        for label, threshold in enumerate(thresholds):
            own, theirs = (
                rows[(rows[:, 5] == label) & (rows[:, 4] >= max(threshold, 1e-12)), :4]
                for rows in (a, b)
            )
            n_boxes += len(own) + len(theirs)
            n_pairs += int(hits_of(overlaps(own, theirs), at).sum())
        if n_boxes:
            shares[image] = 2 * n_pairs / n_boxes
    return shares


def mean_agreement(shares: Floats) -> float:
    """Of the images that either tells a box of; where there is none, both say the same."""
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if len(known) else 1.0


def presence(draws: Draws, is_there: NDArray[np.bool_], scores: NDArray[np.floating]) -> Floats:
    """(1 + r,) area under the ROC curve of whether an image shows a label, a mean over labels.

    Of labels that all images show, or none, there is no such area; NaN where that is all of them.

    Args:
        is_there: (n, c).
        scores: (n, c), larger where a label is likelier.
    """
    return mean_over_labels(
        [areas(draws, own, score) for own, score in zip(is_there.T, scores.T, strict=True)]
    )

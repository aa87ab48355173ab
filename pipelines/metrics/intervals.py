"""Resamples of whole groups, drawn once, and the metrics of many sets of answers at once.

A metric needs of each class how often it was answered rightly, was there, and was answered: 3 c
numbers a resample, summed by one matrix product, where a confusion matrix has c². Values lie in
[0, 1] and are NaN where they are not defined. `pipelines.metrics.classification` has the same of
one matrix, `pipelines.metrics.intervals` says what resamples are for. Pure NumPy.

How sure a figure is: 95 % percentile bootstrap intervals, by resampling whole groups.

Images of one group (a patient, a plant, a video) err together, so the group is what is drawn, with
replacement, and all its images come along. A metric that rests on sums (counts of a confusion
matrix, bins, means) is summed once by group and needs no second look at the images; any other goes
through `by_indices`. Pure NumPy. Called by `audit`, `export`, `evaluate`, `compare`, `validate`.

What these intervals do not say: with few groups they are too narrow (of 8 groups they held the true
figure in 80 % of 1,000 simulated trials, of 20 in 93 %, of 60 in 95 %), and where every answer is
right they have no width at all (by the rule of three, n right groups still allow about 3/n wrong
ones). One group alone says nothing about others: its interval is all that the metric can be.

References:
    Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13 (percentile interval)
    and section 8.6 (resample what was drawn independently); Field & Welsh 2007, "Bootstrapping
    clustered data", JRSS B 69 (the cluster bootstrap). Rule of three: Hanley & Lippman-Hand 1983,
    "If nothing goes wrong, is everything all right?", JAMA 249.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.serving.trust import Interval

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


# -- intervals ------------------------------------------------------------------------------------
#: Per cent of the resamples below `Interval.low` and above `Interval.high`.
_TAIL = 2.5
#: (r, k) sums -> (r,) metric; NaN where it is not defined.
OfSums = Callable[[Floats], Floats]

SHARE = (0.0, 1.0)
DIFFERENCE = (-1.0, 1.0)


# -- from sums ------------------------------------------------------------------------------------
def by_sums(
    draws: Draws, rows: NDArray[Any], metric: OfSums, bounds: tuple[float, float] = SHARE
) -> Interval | None:
    """A metric of sums over the images, with its interval.

    Resamples in which it is not defined (a label that was not drawn) do not count.

    Args:
        rows: (n, k), one a image.
        metric: (r, k) sums over the images -> (r,) values.
        bounds: all that the metric can be; the interval where there is one group only.

    Returns:
        None where the metric is not defined on the images themselves.
    """
    table = np.asarray(rows, np.float64)
    by_group = np.zeros((draws.n_groups, table.shape[1]))
    np.add.at(by_group, draws.place, table)
    return _interval(draws, by_group, metric, bounds)


def by_mean(
    draws: Draws, values: NDArray[Any], bounds: tuple[float, float] = SHARE
) -> Interval | None:
    """The mean of a value that every image has: accuracy, agreement, Brier score, share refused.

    Args:
        values: (n,); NaN for images that do not count, e.g. those without the label.
        bounds: as in `by_sums`.

    Returns:
        None where no image counts.
    """
    wide = np.asarray(values, np.float64)
    counts = np.isfinite(wide)
    rows = np.stack([np.where(counts, wide, 0.0), counts], axis=1)
    return by_sums(draws, rows, lambda sums: ratio(sums[:, 0], sums[:, 1]), bounds)


def by_shares(draws: Draws, part: NDArray[Any], whole: NDArray[Any]) -> list[Interval | None]:
    """For each of k things, the share of the images that count which are in part; all at once.

    Args:
        part: (n, k) whether an image is counted as hit.
        whole: (n, k) whether it counts at all.
    """
    shares = ratio(rows_summed(draws, part & whole), rows_summed(draws, whole))
    return [_of_column(draws, column, SHARE) for column in shares.T]


def by_counts(
    draws: Draws, class_index: Integers, predicted: Integers, n_classes: int, metric: OfCounts
) -> Interval | None:
    """A metric of the confusion matrix, with its interval.

    Args:
        class_index: (n,) true classes.
        predicted: (n,) answers.
        n_classes: c.
        metric: of pipelines.metrics.intervals that gives one value, e.g. `macro_f1s`.

    Returns:
        None where the metric is not defined on the images themselves.
    """
    counts = resampled(draws, class_index, predicted, n_classes)
    return of_counts(draws, counts, metric)[0]


def of_counts(
    draws: Draws, counts: Counts, metric: OfCounts, bounds: tuple[float, float] = SHARE
) -> list[Interval | None]:
    """A metric of the confusion matrix for each class, or one alone, with its intervals.

    Args:
        counts: of `resampled`.
        metric: of pipelines.metrics.intervals.
        bounds: as in `by_sums`.
    """
    values = metric(counts)
    table = values.reshape(len(values), -1)
    return [_of_column(draws, column, bounds) for column in table.T]


def paired(
    draws: Draws, class_index: Integers, a: Integers, b: Integers, n_classes: int, metric: OfCounts
) -> Interval | None:
    """By how much the metric of answers ``a`` lies above that of ``b``, on the same images.

    Both are taken on the same resamples, so what makes an image hard for both cancels out.

    Args:
        class_index: (n,) true classes.
        a: (n,) answers.
        b: (n,) other answers.
        n_classes: c.
        metric: as in `by_counts`.

    Returns:
        None where the metric is not defined for one of them.
    """
    of_a, of_b = (metric(resampled(draws, class_index, each, n_classes)) for each in (a, b))
    return _of_column(draws, of_a - of_b, DIFFERENCE)


def ece(
    draws: Draws, class_index: Integers, probabilities: NDArray[np.floating[Any]], bins: int
) -> Interval | None:
    """Expected calibration error, with its interval; bins as in `metrics.reliability_bins`.

    A resample's error is on average larger than that of the images themselves, because the gaps are
    counted without sign: the interval leans upwards and may even lie above the value.

    Args:
        class_index: (n,) true classes.
        probabilities: (n, c), rows add up to 1.
        bins: equal divisions of [0, 1].
    """
    said = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == class_index
    place = np.clip(np.ceil(said * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.zeros((len(said), bins + 1))
    rows[np.arange(len(said)), place] = right - said
    rows[:, bins] = 1
    return by_sums(draws, rows, lambda sums: np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])


# -- from the images ------------------------------------------------------------------------------
def by_indices(
    draws: Draws,
    metric: Callable[[NDArray[np.int64]], float | None],
    bounds: tuple[float, float] = SHARE,
) -> Interval | None:
    """Any metric, with its interval; asked once a resample, so give it something quick.

    Args:
        draws: of these images; take fewer resamples where the metric is slow.
        metric: (m,) numbers of images, some several times -> value; None or NaN where undefined.
        bounds: as in `by_sums`.

    Returns:
        None where the metric is not defined on the images themselves.
    """
    n = len(draws.place)
    value = metric(np.arange(n))
    if value is None or not np.isfinite(value):
        return None
    if draws.n_groups == 1:
        return Interval(value=float(value), low=bounds[0], high=bounds[1])
    found = np.empty(len(draws.times))
    for number, times in enumerate(draws.times):
        answer = metric(np.repeat(np.arange(n), times[draws.place]))
        found[number] = np.nan if answer is None else answer
    return percentiles(float(value), found, bounds)


# -- inside ---------------------------------------------------------------------------------------
def _of_column(draws: Draws, values: Floats, bounds: tuple[float, float]) -> Interval | None:
    """(1 + r,) a metric of the images themselves and of each resample, as an interval."""
    value = float(values[0])
    if not np.isfinite(value):
        return None
    if draws.n_groups == 1:
        return Interval(value=value, low=bounds[0], high=bounds[1])
    return percentiles(value, values[1:], bounds)


def _interval(
    draws: Draws, by_group: Floats, metric: OfSums, bounds: tuple[float, float]
) -> Interval | None:
    value = float(metric(by_group.sum(axis=0, keepdims=True))[0])
    if not np.isfinite(value):
        return None
    if draws.n_groups == 1:
        return Interval(value=value, low=bounds[0], high=bounds[1])
    step = max(1, CELLS // draws.n_groups)
    found = [
        metric(draws.times[start : start + step].astype(np.float64) @ by_group)
        for start in range(0, len(draws.times), step)
    ]
    return percentiles(value, np.concatenate(found), bounds)


def percentiles(value: float, found: Floats, bounds: tuple[float, float]) -> Interval:
    """The middle 95 % of resampled values.

    Args:
        value: on the images themselves.
        found: (r,) on the resamples; NaN where it is not defined.
        bounds: given where it is defined on none.
    """
    defined = found[np.isfinite(found)]
    if not len(defined):
        return Interval(value=value, low=bounds[0], high=bounds[1])
    low, high = np.percentile(defined, [_TAIL, 100 - _TAIL])
    return Interval(value=value, low=float(low), high=float(high))


# -- areas under curves ---------------------------------------------------------------------------
#: Mean over the classes, and by class.
Areas = tuple[Interval | None, list[Interval | None]]
#: Weights that are held at a time: 32 MB.
_WEIGHTS = 4_000_000
#: Groups for each class up to which all classes are done at once; both ways give the same numbers.
_GROUPS_A_CLASS = 50


def roc_auc(draws: Draws, class_index: NDArray[Any], probabilities: NDArray[Any]) -> Areas:
    """Area under the ROC curve of one class against the rest, for each class, and their mean.

    A resample only changes how often an image counts, so images are sorted once and weighted.

    Args:
        class_index: (n,) true classes.
        probabilities: (n, c).

    Returns:
        The mean over the classes, None unless each class is there and is not alone (as in
        `metrics.classification.classification_metrics`); and (c) by class, None where it is not.

    References:
        Hanley & McNeil 1982, "The meaning and use of the area under a receiver operating
        characteristic (ROC) curve", Radiology 143: the share of pairs in order, ties a half.
    """
    c = probabilities.shape[1]
    if draws.n_groups <= _GROUPS_A_CLASS * c:
        table = _all_areas(draws, class_index, probabilities)
    else:
        columns = [_areas(draws, class_index == k, probabilities[:, k]) for k in range(c)]
        table = np.stack(columns, axis=1)  # (1 + r, c), the images themselves first
    return _area_interval(draws, table.mean(axis=1)), [
        _area_interval(draws, column) for column in table.T
    ]


def _area_interval(draws: Draws, areas: Floats) -> Interval | None:
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
    step = max(1, _WEIGHTS // max(len(every), n))
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
    step = max(1, _WEIGHTS // len(order))
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

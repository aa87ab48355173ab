"""How well vectors find pictures of the same identity, and tell pairs of pictures apart.

Every picture is asked in turn, the others of the same split are its gallery. Pictures of one
occasion (frames of a video, copies, shots of one plant) find each other whatever a model has
learned, so that they do not count for one another, neither as right nor as wrong. A picture without
any other of its identity is asked for nothing and stays in the gallery, as strangers do.

Throughout, ``distance`` is (n, n), and ``known`` (n, 2) integers: identity and occasion.

References:
    Musgrave, Belongie and Lim 2020, "A metric learning reality check", section 3.2 (mean average
    precision at R). ISO/IEC 19795-1 (false match and false non-match rate, equal error rate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError
from pipelines.metrics.intervals import DIFFERENCE, SHARE, Draws, Floats, interval_of
from pipelines.serving.trust import Interval

Known = NDArray[np.int64]

#: Pairs of each sort that are looked at; more narrow no interval, since groups decide its width.
_MAX_PAIRS = 30_000
#: Nearest pictures that two files are asked for.
_NEAREST = 5
#: Distances that differ by less are equal.
_TIED = 1e-6
#: Weights that are held at a time: 32 MB.
_CELLS = 4_000_000
#: Keeps the draw of pairs apart from others.
_STREAM = 0x9A12


def may_count(known: Known) -> NDArray[np.bool_]:
    """(n, n) whether a picture (row) may be compared with another (column)."""
    differ: NDArray[np.bool_] = known[:, np.newaxis, 1] != known[:, 1]
    return differ


def of_one(known: Known) -> NDArray[np.bool_]:
    """(n, n) whether both are of one identity."""
    same: NDArray[np.bool_] = known[:, np.newaxis, 0] == known[:, 0]
    return same


def ranked(distance: NDArray[Any], known: Known, k: int) -> NDArray[np.int64]:
    """(n, k) the nearest pictures that may be compared, the nearest first; -1 where none is left.

    Of equal distances, the first.
    """
    counts = may_count(known)
    far = np.where(counts, distance, np.inf)
    order = np.argsort(far, axis=1, kind="stable")[:, :k]
    return np.where(np.take_along_axis(counts, order, axis=1), order, -1)


def recall_at(distance: NDArray[Any], known: Known, k: int) -> Floats:
    """(n,) 1 where one of the k nearest is of the same identity, else 0; NaN where none could."""
    near = ranked(distance, known, k)
    hits = (known[near, 0] == known[:, :1]) & (near >= 0)
    return np.where(_is_asked(known), hits.any(axis=1), np.nan)


def map_at_r(distance: NDArray[Any], known: Known) -> Floats:
    """(n,) average precision among the nearest R, of which R are right; NaN where R is 0."""
    n_right = (may_count(known) & of_one(known)).sum(axis=1)
    most = int(n_right.max(initial=0))
    near = ranked(distance, known, most)
    place = np.arange(1, most + 1)
    hits = (known[near, 0] == known[:, :1]) & (near >= 0) & (place <= n_right[:, np.newaxis])
    precision = np.cumsum(hits, axis=1) / np.maximum(place, 1)
    total = (precision * hits).sum(axis=1)
    return np.where(n_right > 0, total / np.maximum(n_right, 1), np.nan)


def expected_recall(distance: NDArray[Any], known: Known) -> Floats:
    """(n,) recall at 1 where one of the pictures that are equally near is drawn; NaN as above.

    For what has few values, or one for all: the order of the files is not to decide.
    """
    counts = may_count(known)
    far = np.where(counts, distance, np.inf)
    nearest = counts & (far <= far.min(axis=1, keepdims=True) + _TIED)
    right = (nearest & of_one(known)).sum(axis=1)
    return np.where(_is_asked(known), right / np.maximum(nearest.sum(axis=1), 1), np.nan)


def _is_asked(known: Known) -> NDArray[np.bool_]:
    return np.asarray((may_count(known) & of_one(known)).sum(axis=1) > 0)


def check_asked(known: Known, what: str) -> None:
    """Nothing, if pictures can be asked and told apart.

    Raises:
        DataError: if no identity has two pictures of two occasions, or there is one identity.
    """
    if not _is_asked(known).any() or len(np.unique(known[:, 0])) < 2:
        raise DataError(
            f"{what}: expected at least 2 identities, and one of them with pictures of 2 occasions "
            f"(got {len(np.unique(known[:, 0]))} identities, {int(_is_asked(known).sum())} "
            f"pictures with another of their identity). Add pictures."
        )


def unit(outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d) with rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(outputs, axis=1, keepdims=True)
    result: NDArray[np.float32] = (outputs / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result


def agreements(one: NDArray[Any], other: NDArray[Any], known: Known) -> NDArray[np.float64]:
    """(n,) share of the five pictures that are nearest by one that are nearest by the other, too.

    Whether an answer stays the same is a question of ranks: what a gallery shows are the nearest.

    Args:
        one: (n, n) distances.
        other: (n, n) distances.
    """
    near, found = ranked(one, known, _NEAREST), ranked(other, known, _NEAREST)
    kept = ((near[:, :, np.newaxis] == found[:, np.newaxis]) & (near >= 0)[:, :, np.newaxis]).any(2)
    n_near = (near >= 0).sum(axis=1)
    shares: NDArray[np.float64] = np.where(n_near, kept.sum(axis=1) / np.maximum(n_near, 1), 1.0)
    return shares


# -- pairs ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Pairs:
    """p pairs of pictures, the nearest first.

    Attributes:
        distance: (p,) rising.
        is_same: (p,) whether they are of one identity.
        one: (p,) rows of the first picture of each.
        other: (p,) of the second.
    """

    distance: Floats
    is_same: NDArray[np.bool_]
    one: NDArray[np.int64]
    other: NDArray[np.int64]

    def by(self, distance: NDArray[Any]) -> Pairs:
        """The same pairs by other (n, n) distances."""
        far = np.asarray(distance, np.float64)[self.one, self.other]
        order = np.argsort(far, kind="stable")
        return Pairs(far[order], self.is_same[order], self.one[order], self.other[order])


def pairs_of(distance: NDArray[Any], known: Known) -> Pairs:
    """All pairs that may be compared; of each sort at most 30,000, drawn."""
    one, other = np.nonzero(np.triu(may_count(known), 1))
    is_same = known[one, 0] == known[other, 0]
    rng = np.random.default_rng(_STREAM)
    kept = []
    for sort in (is_same, ~is_same):
        rows = np.flatnonzero(sort)
        kept.append(rows if len(rows) <= _MAX_PAIRS else rng.permutation(rows)[:_MAX_PAIRS])
    rows = np.sort(np.concatenate(kept))
    all_pairs = Pairs(np.empty(len(rows)), is_same[rows], one[rows], other[rows])
    return all_pairs.by(distance)


def error_rates(pairs: Pairs, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """False matches and false non-matches where each distance in turn is the bound.

    Args:
        pairs: p of them.
        weights: (r, p) how often each counts; by default once.

    Returns:
        Shares of the pairs of two identities at most as far apart, and of those of one identity
        that are farther, each (r, p). Of equal distances, the last is to be read.
    """
    weights = np.ones((1, len(pairs.distance))) if weights is None else weights
    near = np.cumsum(weights * ~pairs.is_same, axis=1)
    found = np.cumsum(weights * pairs.is_same, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return near / near[:, -1:], 1 - found / found[:, -1:]


def equal_error_rates(pairs: Pairs, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """Where both error rates are equal, by a straight line between two distances.

    Returns:
        Rates and distances, each (r,); NaN where pairs of one sort are missing.
    """
    matches, misses = error_rates(pairs, weights)
    last = np.flatnonzero(np.append(np.diff(pairs.distance) > 0, True))
    # Nothing is near enough at first: no false match, and all of one identity are missed.
    gap = np.pad((matches - misses)[:, last], ((0, 0), (1, 0)), constant_values=-1.0)
    level = np.pad(misses[:, last], ((0, 0), (1, 0)), constant_values=1.0)
    far = np.concatenate([pairs.distance[:1], pairs.distance[last]])
    at = np.argmax(gap >= 0, axis=1)
    rows = np.arange(len(gap))
    before = np.maximum(at - 1, 0)
    rise = gap[rows, at] - gap[rows, before]
    step = np.where(rise > 0, -gap[rows, before] / np.where(rise > 0, rise, 1.0), 0.0)
    rate = level[rows, before] + step * (level[rows, at] - level[rows, before])
    bound = far[before] + step * (far[at] - far[before])
    is_defined = np.isfinite(gap).all(axis=1)
    return np.where(is_defined, rate, np.nan), np.where(is_defined, bound, np.nan)


def rates_at(pairs: Pairs, bound: float, weights: Floats | None = None) -> tuple[Floats, Floats]:
    """`error_rates` of one bound, each (r,)."""
    matches, misses = error_rates(pairs, weights)
    place = int(np.searchsorted(pairs.distance, bound, side="right")) - 1
    if place < 0:
        return np.zeros(len(matches)), np.ones(len(misses))
    return matches[:, place], misses[:, place]


def bound_for(pairs: Pairs, max_false_matches: float | None) -> float:
    """The distance up to which two pictures are called the same.

    Args:
        pairs: of the val split.
        max_false_matches: share of the pairs of two identities that may be; None for as many as
            pairs of one identity are missed.

    Raises:
        DataError: if pairs of one sort are missing.
    """
    rate, at_equal = (float(found[0]) for found in equal_error_rates(pairs))
    if not np.isfinite(rate):
        raise DataError(
            "the val split needs pairs of one identity and of two to choose a distance. Add "
            "identities, or raise val_fraction in params.yaml."
        )
    if max_false_matches is None:
        return at_equal
    matches = error_rates(pairs)[0][0]
    within = np.flatnonzero(matches <= max_false_matches)
    # Of equal distances all or none.
    allowed = [
        i for i in within if i + 1 == len(matches) or pairs.distance[i + 1] > pairs.distance[i]
    ]
    return float(pairs.distance[allowed[-1]]) if allowed else float(pairs.distance[0]) / 2


@dataclass(frozen=True, slots=True)
class PairRates:
    """Rates of the images themselves and of each resample, (1 + r,) each."""

    eer: Floats
    false_match: Floats
    false_non_match: Floats


def resampled_rates(draws: Draws, pairs: Pairs, bound: float) -> PairRates:
    """The rates of pairs; a pair counts as often as its groups are drawn, both of them.

    A pair within one group counts as often as that: pairs of two draws of it would be pictures
    compared with themselves.
    """
    one, other = draws.place[pairs.one], draws.place[pairs.other]
    step = max(1, _CELLS // max(len(one), 1))
    parts = [_rates(pairs, bound, np.ones((1, len(one))))]
    for start in range(0, len(draws.times), step):
        times = draws.times[start : start + step].astype(np.float64)
        weights = times[:, one] * np.where(one == other, 1.0, times[:, other])
        parts.append(_rates(pairs, bound, weights))
    return PairRates(*(np.concatenate(found) for found in zip(*parts, strict=True)))


def _rates(pairs: Pairs, bound: float, weights: Floats) -> tuple[Floats, Floats, Floats]:
    return (equal_error_rates(pairs, weights)[0], *rates_at(pairs, bound, weights))


def rate_interval(draws: Draws, values: Floats) -> Interval | None:
    """A rate of `PairRates` with its interval."""
    return interval_of(draws, values, SHARE)


def drop_interval(draws: Draws, a: Floats, b: Floats) -> Interval | None:
    """By how much one rate lies above another, on the same resamples."""
    return interval_of(draws, a - b, DIFFERENCE)

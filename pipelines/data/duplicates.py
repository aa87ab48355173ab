"""Which images are the same file, which show the same picture, and the groups that follow.

Exact duplicates (SHA-256) are kept once, and link their groups: bytes are bytes. Near duplicates
are kept, and an image whose group nobody stated is put into the group of its near duplicate, so
that no such pair can stand in two splits. Two groups that somebody stated are never joined for
looking alike: the pair is counted and named. Pure: nothing here reads a file. Called by `prepare`
and `validate`.

Near duplicates are candidates by hash, each settled by a closer look. Hashes of pictures that share
most of what they show collide: parts under a fixed camera, the black rim of an endoscope. Over the
whole picture such a pair correlates too. So one thumbnail is moved and stretched onto the other by
a little, as a crop would need, and brightness and contrast are taken out; then each small window is
correlated by itself, and what differs is seen where it is.

Two questions are kept apart. Is most of the picture the same (`_MOST`)? Then it is a copy, a crop,
or the next frame of a video. But under a fixed camera most of the picture is the same for ever, and
what is photographed is the small rest. So where alike images are too many for one picture (a
scene), only those count that are the same everywhere (`_EVERYWHERE`), and of those that even then
cannot be told apart, such as faultless parts, only pairs that stand out as one exposure stored
twice.

References:
    Baker & Matthews 2004, "Lucas-Kanade 20 years on: a unifying framework", IJCV 56, section 3
    (steepest descent on the image's gradient). Keys 1981, "Cubic convolution interpolation for
    digital image processing", equation 15, a = -1/2.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.fingerprints import THUMBNAIL_PX, Fingerprints, are_alike
from pipelines.data.manifest import SPLITS, Record

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

# -- a closer look --------------------------------------------------------------------------------
#: Pairs at a time: some 40 MB.
_BATCH = 128
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
class _Comparison:
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


def _compare(prints: Fingerprints, left: Indices, right: Indices) -> _Comparison:
    """A close look at p pairs of images; which is left and which right may change a last digit."""
    batches = (slice(start, start + _BATCH) for start in range(0, len(left), _BATCH))
    found = [
        _compare_some(prints.thumbnails[left[batch]], prints.thumbnails[right[batch]])
        for batch in batches
    ]
    if not found:
        none = np.zeros(0, np.float32)
        return _Comparison(none, none, none, none)
    return _Comparison(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _compare_some(
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


# -- near duplicates ------------------------------------------------------------------------------
#: Given the indices of pairs, says which of them are worth a look.
Wanted = Callable[[Indices, Indices], NDArray[np.bool_]]

#: Pairs compared at a time: 256 × 4096 hashes are 8 MB, whatever the number of images.
_TILE_ROWS, _TILE_COLUMNS = 256, 4096
#: Pairs of coarse thumbnails compared at a time: 2 × 8 MB.
_COARSE_PAIRS = 8192
#: Pairs looked at closely between two looks at what is joined by now.
_CLOSE_PAIRS = 256
#: Close looks at one image, at most, that show another picture: bounds the time on sets whose
#: hashes all collide.
_MAX_IN_VAIN = 64

#: Least correlation that three quarters of the windows reach in one picture, or in neighbouring
#: frames. Measured by benchmarks/near_duplicates.py.
_MOST = 0.65
#: Least correlation anywhere of one picture stored twice, where many are alike.
_EVERYWHERE = 0.85

#: More alike images than this are no picture but a scene ...
_MAX_COPIES = 30
#: ... and so are fewer, from so many on, if they are a larger share of the images of a label.
_MIN_SCENE, _MAX_SHARE = 6, 0.2
#: Images of a scene that one of them is compared with: those that correlate best.
_NEAREST = 8
#: Times the usual difference of two copies, or of half a level, that a window may differ by.
_MAX_WINDOW = 3.0
#: A pair stands out if it differs by no more than this share of what is usual among the nearest:
#: in the middle of its windows, or in the window that differs most, where that is at least
#: `_MIN_GAP` below 1 otherwise.
_OF_USUAL, _OF_USUAL_GAP, _MIN_GAP = 0.75, 0.2, 0.15
#: One picture without compression between: grey levels below the rounding of two exposures (0.41,
#: the root of 2 / 12), and the correlation where it is lowest.
_SAME_LEVELS, _SAME = 0.25, 0.97


@dataclass(frozen=True, slots=True)
class Found:
    """Near duplicates among n images.

    Attributes:
        left: (p,) indices, each below its partner's in ``right``.
        scenes: the images that look alike without being copies, one tuple of indices a scene.
    """

    left: Indices
    right: Indices
    scenes: tuple[tuple[int, ...], ...] = ()


def find(
    prints: Fingerprints, labels: Sequence[str], max_bits: int, wanted: Wanted | None = None
) -> Found:
    """The pairs that show one picture.

    Args:
        prints: of n images; their order breaks ties.
        max_bits: two hashes that differ in at most so many bits make a candidate.
        wanted: asked about candidates; all by default.
    """
    asked = wanted or (lambda left, right: np.ones(len(left), np.bool_))
    label = np.unique(np.asarray(labels, dtype=object), return_inverse=True)[1]
    root = _alike(prints, max_bits, asked)
    scenes = _scenes(root, label)
    is_scene = np.zeros(len(root), np.bool_)
    for members in scenes:
        is_scene[members] = True
    lefts, rights = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]

    def is_together(left: Indices, right: Indices) -> NDArray[np.bool_]:
        together: NDArray[np.bool_] = (root[left] == root[right]) & ~is_scene[left]
        together[together] = asked(left[together], right[together])
        return together

    for left, right in near_pairs(prints, max_bits, is_together):
        keep = _compare(prints, left, right).quartile >= _MOST
        lefts.append(left[keep])
        rights.append(right[keep])
    for members in scenes:
        left, right = _within(prints, members, max_bits, asked)
        # Still too many for one picture: nothing tells its copies from the like.
        still = _scenes(joined(np.arange(len(root), dtype=np.intp), left, right), label)
        keep = ~np.isin(left, np.concatenate([np.zeros(0, np.intp), *still]))
        lefts.append(left[keep])
        rights.append(right[keep])
    left, right = np.concatenate(lefts), np.concatenate(rights)
    order = np.lexsort((right, left))
    return Found(left[order], right[order], tuple(tuple(each.tolist()) for each in scenes))


def _alike(prints: Fingerprints, max_bits: int, asked: Wanted) -> Indices:
    """The first image of those that each looks like, over any number of steps."""
    root = np.arange(len(prints.bits), dtype=np.intp)
    in_vain = np.zeros(len(root), np.intp)

    def is_news(left: Indices, right: Indices) -> NDArray[np.bool_]:
        news: NDArray[np.bool_] = (root[left] != root[right]) & (
            np.minimum(in_vain[left], in_vain[right]) < _MAX_IN_VAIN
        )
        news[news] = asked(left[news], right[news])
        return news

    for left, right in near_pairs(prints, max_bits, is_news):
        for start in range(0, len(left), _CLOSE_PAIRS):
            i, j = left[start : start + _CLOSE_PAIRS], right[start : start + _CLOSE_PAIRS]
            news = is_news(i, j)
            i, j = i[news], j[news]
            is_most = _compare(prints, i, j).quartile >= _MOST
            root = joined(root, i[is_most], j[is_most])
            np.add.at(in_vain, i[~is_most], 1)
            np.add.at(in_vain, j[~is_most], 1)
    return root


# -- scenes ---------------------------------------------------------------------------------------
def _scenes(root: Indices, label: Indices) -> list[Indices]:
    """The members of each component that is too large for one picture."""
    of_label = np.bincount(label)
    sizes = np.bincount(root, minlength=len(root))
    found = []
    for first in np.flatnonzero(sizes >= _MIN_SCENE):
        members = np.flatnonzero(root == first)
        share = max(n / of_label[each] for each, n in Counter(label[members].tolist()).items())
        if len(members) > _MAX_COPIES or share > _MAX_SHARE:
            found.append(members)
    return found


def _within(
    prints: Fingerprints, members: Indices, max_bits: int, asked: Wanted
) -> tuple[Indices, Indices]:
    """The copies within one scene, sought among the nearest of each image."""
    left, right = _nearest(prints.coarse[members])
    left, right = members[left], members[right]
    close = np.bitwise_count(prints.bits[left] ^ prints.bits[right]) <= max_bits
    close &= asked(left, right)
    left, right = left[close], right[close]
    found, n = _compare(prints, left, right), len(prints.bits)
    gap = 1 - found.least
    usual_gap = _usual(left, right, gap, n)
    is_even = found.largest <= _MAX_WINDOW * np.maximum(found.residual, 0.5)
    keep = (
        (found.least >= _EVERYWHERE)
        & is_even
        & (
            (found.residual <= _OF_USUAL * _usual(left, right, found.residual, n))
            | ((gap <= _OF_USUAL_GAP * usual_gap) & (usual_gap >= _MIN_GAP))
            | ((found.residual <= _SAME_LEVELS) & (found.least >= _SAME))
        )
    )
    return left[keep], right[keep]


def _nearest(coarse: NDArray[np.uint8]) -> tuple[Indices, Indices]:
    """Pairs of each image with those that correlate best with it, each pair once."""
    n = len(coarse)
    unit = coarse.astype(np.float32)
    unit -= unit.mean(axis=1, keepdims=True)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-6)
    k = min(_NEAREST, n - 1)
    pairs = []
    for top in range(0, n, _TILE_ROWS):
        rows = np.arange(top, min(n, top + _TILE_ROWS))
        product = unit[rows] @ unit.T
        product[np.arange(len(rows)), rows] = -2
        best = np.argpartition(-product, k - 1, axis=1)[:, :k]
        both = np.stack([np.repeat(rows, k), best.reshape(-1)])
        pairs.append(np.sort(both, axis=0))
    unique = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return unique[0].astype(np.intp), unique[1].astype(np.intp)


def _usual(
    left: Indices, right: Indices, value: NDArray[np.float32], n: int
) -> NDArray[np.float64]:
    """(p,) the lower of both images' middle value among the pairs that they are in."""
    image = np.concatenate([left, right])
    both = np.concatenate([value, value]).astype(np.float64)
    order = np.lexsort((both, image))
    first, counts = np.unique(image[order], return_index=True, return_counts=True)[1:]
    middle = np.zeros(n)
    middle[image[order][first]] = both[order][first + counts // 2]
    lower: NDArray[np.float64] = np.minimum(middle[left], middle[right])
    return lower


# -- candidates -----------------------------------------------------------------------------------
def near_pairs(
    prints: Fingerprints, max_bits: int, wanted: Wanted
) -> Iterator[tuple[Indices, Indices]]:
    """The wanted candidates: hashes are close and coarse thumbnails correlate; block by block.

    Every pair of hashes is compared: 50,000 images are 1.25 thousand million pairs, which NumPy's
    population count does in some seconds, exactly and without an index to get wrong.

    Args:
        max_bits: the most bits in which two hashes may differ.
        wanted: asked about each pair whose hashes are close, before the thumbnails are compared;
            it may change its answers while pairs are drawn.

    Yields:
        Equally long, not empty arrays of indices i and j, i < j. Memory does not grow with the
        number of images or of pairs.
    """
    n = len(prints.bits)
    for top in range(0, n, _TILE_ROWS):
        rows = prints.bits[top : top + _TILE_ROWS, None]
        for start in range(top, n, _TILE_COLUMNS):
            columns = prints.bits[None, start : start + _TILE_COLUMNS]
            close = np.bitwise_count(rows ^ columns) <= max_bits
            if start < top + _TILE_ROWS:
                close &= np.arange(start, start + close.shape[1]) > np.arange(
                    top, top + close.shape[0]
                ).reshape(-1, 1)
            left, right = np.nonzero(close)
            for begin in range(0, len(left), _COARSE_PAIRS):
                i = left[begin : begin + _COARSE_PAIRS] + top
                j = right[begin : begin + _COARSE_PAIRS] + start
                keep = wanted(i, j)
                i, j = i[keep], j[keep]
                alike = are_alike(prints.coarse[i], prints.coarse[j])
                if alike.any():
                    yield i[alike], j[alike]


def joined(root: Indices, left: Indices, right: Indices) -> Indices:
    """(n,) connected components after new edges: each node's smallest connected node.

    Hook the larger root to the smaller, then halve paths until nothing moves, as in Shiloach and
    Vishkin, An O(log n) parallel connectivity algorithm (1982): a few vector operations where a
    union-find would loop over pairs.
    """
    while True:
        low = np.minimum(root[left], root[right])
        now = root.copy()
        np.minimum.at(now, root[left], low)
        np.minimum.at(now, root[right], low)
        while not np.array_equal(shorter := now[now], now):
            now = shorter
        if np.array_equal(now, root):
            return root
        root = now


# -- duplicates -----------------------------------------------------------------------------------
#: What the card wants done about near duplicates.
Policy = Literal["join", "warn", "off"]

#: Pairs that are listed by name.
_LISTED_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Dropped:
    """A copy that is left out, and why, in one line.

    Attributes:
        index: of its record.
        is_conflict: whether a copy with another label exists; then all copies are left out.
    """

    index: int
    is_conflict: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Groups after images that belong together were joined.

    Attributes:
        groups: the group of each record; of joined groups, the stated name that sorts first.
        n_joined: groups that were made of several.
        n_absorbed: groups that there are fewer than before.
        pairs: (p, 2) indices of the near duplicates.
        is_apart: (p,) whether a pair was left in two groups, because both are stated or because
            the card says so.
        n_conflicts: pairs whose labels differ.
        conflicts: the paths of the first of them.
        scenes: indices of the images of each scene: alike, and not joined for it.
    """

    groups: tuple[str, ...]
    n_joined: int
    n_absorbed: int
    pairs: Indices
    is_apart: NDArray[np.bool_]
    n_conflicts: int
    conflicts: tuple[tuple[str, str], ...]
    scenes: tuple[tuple[int, ...], ...]


def is_stated(record: Record) -> bool:
    """Whether records.csv or the card's ``group_pattern`` says what the image belongs to.

    Where nobody did, an image is a group of its own and named after itself.
    """
    return record.group != record.path


def drop_exact(records: Sequence[Record], sha256s: Sequence[str]) -> list[Dropped]:
    """The copies to leave out: all but the first by path, or all where their labels differ.

    Of copies in two parts of a published split, the one in test stays, or else the one in val: a
    test part that lost images could not be compared with what others report on it, and train can
    spare an image.
    """
    copies: defaultdict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(records)), key=lambda index: _keep_order(records[index])):
        copies[sha256s[index]].append(index)
    dropped = []
    for same in copies.values():
        first = records[same[0]]
        other = next((records[i] for i in same if _said(records[i]) != _said(first)), None)
        for index in same[1:] if other is None else same:
            if other is None:
                reason = f"exact duplicate of {first.path!r}"
            else:
                rival = other if _said(records[index]) == _said(first) else first
                reason = f"conflicting labels: the same bytes as {rival.path!r} ({rival.label})"
            dropped.append(Dropped(index, other is not None, reason))
    return dropped


def _said(record: Record) -> tuple[str, str]:
    return record.label, record.truth


def _keep_order(record: Record) -> tuple[int, str]:
    return (-SPLITS.index(record.split) if record.split else 0, record.path)


def linked_by_copies(records: Sequence[Record], sha256s: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of groups that hold copies of one file: what else they hold may be related too."""
    first: dict[str, str] = {}
    pairs = {
        (first.setdefault(sha256, record.group), record.group)
        for record, sha256 in zip(records, sha256s, strict=True)
    }
    return sorted((one, other) for one, other in pairs if one != other)


def join_groups(
    records: Sequence[Record],
    prints: Fingerprints,
    max_bits: int,
    linked: Sequence[tuple[str, str]] = (),
    *,
    left_out: Sequence[Record] = (),
    policy: Policy = "join",
) -> Joined:
    """Groups such that copies are together, and near duplicates as far as nobody stated otherwise.

    Joining is transitive. The result does not depend on the order of the records.

    Args:
        records: the images that are kept.
        prints: their fingerprints, in the same order.
        max_bits: two hashes that differ in at most so many bits may be near duplicates.
        linked: pairs of group names that belong together for another reason, e.g. because an
            image of one is a copy of an image of the other.
        left_out: records whose groups may be named in ``linked``.
        policy: ``join``; ``warn`` finds pairs and leaves them apart; ``off`` seeks none.
    """
    order = np.array(sorted(range(len(records)), key=lambda index: records[index].path), np.intp)
    found = _near([records[index] for index in order], prints, order, max_bits, policy)
    pairs = order[np.stack([found.left, found.right], axis=1)]
    groups = _Groups([*records, *left_out])
    for one, other in linked:
        groups.join(one, other)
    if policy == "join":
        for i, j in pairs:
            groups.join_unless_stated(records[i].group, records[j].group)
    differ = [(i, j) for i, j in pairs if records[i].label != records[j].label]
    names = tuple(groups.name(record.group) for record in records)
    sizes = Counter(groups.root(name) for name in {r.group for r in records}.union(*linked))
    return Joined(
        groups=names,
        n_joined=sum(size > 1 for size in sizes.values()),
        n_absorbed=sum(sizes.values()) - len(sizes),
        pairs=pairs,
        is_apart=np.array([names[i] != names[j] for i, j in pairs], np.bool_),
        n_conflicts=len(differ),
        conflicts=tuple((records[i].path, records[j].path) for i, j in differ[:_LISTED_PAIRS]),
        scenes=tuple(tuple(order[list(members)].tolist()) for members in found.scenes),
    )


def _near(
    ordered: Sequence[Record], prints: Fingerprints, order: Indices, max_bits: int, policy: Policy
) -> Found:
    if policy == "off":
        none = np.zeros(0, np.intp)
        return Found(none, none)
    group = np.unique([record.group for record in ordered], return_inverse=True)[1]
    label = np.unique([record.label for record in ordered], return_inverse=True)[1]

    def is_news(left: Indices, right: Indices) -> NDArray[np.bool_]:
        news: NDArray[np.bool_] = (group[left] != group[right]) | (label[left] != label[right])
        return news

    labels = [record.label for record in ordered]
    return find(prints.of(order), labels, max_bits, is_news)


class _Groups:
    """Names of groups, joined step by step."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Each group by itself."""
        self._parent = {record.group: record.group for record in records}
        self._is_stated = dict.fromkeys(self._parent, False)
        for record in records:
            self._is_stated[record.group] |= is_stated(record)
        self._name = {name: name for name in self._parent}

    def root(self, name: str) -> str:
        """The one that stands for all that are joined."""
        while (parent := self._parent[name]) != name:
            self._parent[name] = self._parent[parent]
            name = parent
        return name

    def name(self, name: str) -> str:
        """What the joined group is called: of the stated names, or else of all, the first."""
        return self._name[self.root(name)]

    def join(self, one: str, other: str) -> None:
        """Make one group of two."""
        low, high = sorted((self.root(one), self.root(other)))
        if low == high:
            return
        both = self._is_stated[low] == self._is_stated[high]
        stated = low if self._is_stated[low] else high
        self._name[low] = min(self._name[low], self._name[high]) if both else self._name[stated]
        self._is_stated[low] |= self._is_stated[high]
        self._parent[high] = low

    def join_unless_stated(self, one: str, other: str) -> None:
        """Make one group of two, if not both were stated."""
        if not (self._is_stated[self.root(one)] and self._is_stated[self.root(other)]):
            self.join(one, other)

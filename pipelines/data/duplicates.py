"""Which images are the same file, which show the same picture, and the groups that follow.

Exact duplicates (SHA-256) are kept once. Near duplicates (perceptual hash and thumbnail) are kept,
but their groups are joined, so that no pair can stand in two splits. Pure: nothing here reads a
file. Called by `prepare`; `pipelines.data.splits` looks for leaks with the same search.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.data.fingerprints import Fingerprints, are_alike
from pipelines.data.manifest import SPLITS, Record

Indices = NDArray[np.intp]
#: Given the indices of pairs, says which of them are worth a look.
Wanted = Callable[[Indices, Indices], NDArray[np.bool_]]

#: Pairs compared at a time: 256 × 4096 hashes are 8 MB, whatever the number of images.
_TILE_ROWS, _TILE_COLUMNS = 256, 4096
#: Pairs of thumbnails compared at a time: 2 × 8 MB.
_THUMBNAIL_PAIRS = 8192
#: Near duplicates with different labels that are listed by name.
_LISTED_PAIRS = 20


@dataclass(frozen=True, slots=True)
class Dropped:
    """A copy that is left out.

    Attributes:
        index: of its record.
        is_conflict: whether a copy with another label exists; then all copies are left out.
        reason: one line.
    """

    index: int
    is_conflict: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Joined:
    """Groups after images that belong together were joined.

    Attributes:
        groups: the group of each record; of joined groups, the name that sorts first.
        n_joined: groups that were made of several.
        n_absorbed: groups that there are fewer than before.
        n_conflicts: near-duplicate pairs whose labels differ.
        conflicts: the paths of the first of them.
    """

    groups: tuple[str, ...]
    n_joined: int
    n_absorbed: int
    n_conflicts: int
    conflicts: tuple[tuple[str, str], ...]


def drop_exact(records: Sequence[Record], sha256s: Sequence[str]) -> list[Dropped]:
    """The copies to leave out: all but the first by path, or all where their labels differ.

    Of copies in two parts of a published split, the one in test stays, or else the one in val: a
    test part that lost images could not be compared with what others report on it, and train can
    spare an image.

    Args:
        records: in any order.
        sha256s: of each record's file.
    """
    copies: defaultdict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(records)), key=lambda index: _keep_order(records[index])):
        copies[sha256s[index]].append(index)
    dropped = []
    for same in copies.values():
        first = records[same[0]]
        other = next((records[i] for i in same if records[i].label != first.label), None)
        for index in same[1:] if other is None else same:
            if other is None:
                reason = f"exact duplicate of {first.path!r}"
            else:
                rival = other if records[index].label == first.label else first
                reason = f"conflicting labels: the same bytes as {rival.path!r} ({rival.label})"
            dropped.append(Dropped(index, other is not None, reason))
    return dropped


def _keep_order(record: Record) -> tuple[int, str]:
    return (-SPLITS.index(record.split) if record.split else 0, record.path)


def linked_by_copies(records: Sequence[Record], sha256s: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of groups that hold copies of one file: what else they hold may be related too.

    Args:
        records: in any order.
        sha256s: of each record's file.
    """
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
) -> Joined:
    """Groups such that near duplicates, and groups known to be linked, are together.

    Joining is transitive. The result does not depend on the order of the records.

    Args:
        records: the images that are kept.
        prints: their fingerprints, in the same order.
        max_bits: two hashes that differ in at most so many bits may be near duplicates.
        linked: pairs of group names that belong together for another reason, e.g. because an
            image of one is a copy of an image of the other.
    """
    order = sorted(range(len(records)), key=lambda index: records[index].path)
    names = sorted({record.group for record in records}.union(*linked))
    number = {name: index for index, name in enumerate(names)}
    group = np.array([number[records[index].group] for index in order], dtype=np.intp)
    label = np.unique([records[index].label for index in order], return_inverse=True)[1]
    edges = np.array([(number[a], number[b]) for a, b in linked], dtype=np.intp).reshape(-1, 2)
    root = _join(np.arange(len(names), dtype=np.intp), edges[:, 0], edges[:, 1])

    def is_news(left: Indices, right: Indices) -> NDArray[np.bool_]:
        is_apart = root[group[left]] != root[group[right]]
        news: NDArray[np.bool_] = is_apart | (label[left] != label[right])
        return news

    conflicts: list[tuple[str, str]] = []
    n_conflicts = 0
    sorted_prints = Fingerprints(prints.bits[order], prints.thumbnails[order])
    for left, right in near_pairs(sorted_prints, max_bits, is_news):
        root = _join(root, group[left], group[right])
        differ = np.flatnonzero(label[left] != label[right])
        n_conflicts += len(differ)
        for pair in differ[: _LISTED_PAIRS - len(conflicts)]:
            conflicts.append((records[order[left[pair]]].path, records[order[right[pair]]].path))
    sizes = np.bincount(root, minlength=len(names))
    return Joined(
        groups=tuple(names[root[number[record.group]]] for record in records),
        n_joined=int((sizes > 1).sum()),
        n_absorbed=int(len(names) - (sizes > 0).sum()),
        n_conflicts=n_conflicts,
        conflicts=tuple(conflicts),
    )


def near_pairs(
    prints: Fingerprints, max_bits: int, wanted: Wanted
) -> Iterator[tuple[Indices, Indices]]:
    """The wanted near-duplicate pairs, block by block.

    Every pair of hashes is compared: 50,000 images are 1.25 thousand million pairs, which NumPy's
    population count does in some seconds, exactly and without an index to get wrong.

    Args:
        prints: of n images.
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
            for begin in range(0, len(left), _THUMBNAIL_PAIRS):
                i = left[begin : begin + _THUMBNAIL_PAIRS] + top
                j = right[begin : begin + _THUMBNAIL_PAIRS] + start
                keep = wanted(i, j)
                i, j = i[keep], j[keep]
                alike = are_alike(prints.thumbnails[i], prints.thumbnails[j])
                if alike.any():
                    yield i[alike], j[alike]


def _join(root: Indices, left: Indices, right: Indices) -> Indices:
    """Connected components after new edges: each node's smallest connected node.

    Hook the larger root to the smaller, then halve paths until nothing moves, as in Shiloach and
    Vishkin, An O(log n) parallel connectivity algorithm (1982): a few vector operations where a
    union-find would loop over pairs.
    """
    while True:
        low = np.minimum(root[left], root[right])
        joined = root.copy()
        np.minimum.at(joined, root[left], low)
        np.minimum.at(joined, root[right], low)
        while not np.array_equal(shorter := joined[joined], joined):
            joined = shorter
        if np.array_equal(joined, root):
            return root
        root = joined

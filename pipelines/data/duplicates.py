"""Which images are the same file, which show the same picture, and the groups that follow.

Exact duplicates (SHA-256) are kept once, and link their groups: bytes are bytes. Near duplicates
(`pipelines.data.near_duplicates`) are kept, and an image whose group nobody stated is put into the
group of its near duplicate, so that no such pair can stand in two splits. Two groups that somebody
stated are never joined for looking alike: the pair is counted and named. Pure: nothing here reads
a file. Called by `prepare` and `validate`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data import near_duplicates
from pipelines.data.fingerprints import Fingerprints
from pipelines.data.manifest import SPLITS, Record
from pipelines.data.near_duplicates import Found, Indices

#: What the card wants done about near duplicates.
Policy = Literal["join", "warn", "off"]

#: Pairs that are listed by name.
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

    Args:
        record: of the image.
    """
    return record.group != record.path


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
        return near_duplicates.nothing()
    group = np.unique([record.group for record in ordered], return_inverse=True)[1]
    label = np.unique([record.label for record in ordered], return_inverse=True)[1]

    def is_news(left: Indices, right: Indices) -> NDArray[np.bool_]:
        news: NDArray[np.bool_] = (group[left] != group[right]) | (label[left] != label[right])
        return news

    labels = [record.label for record in ordered]
    return near_duplicates.find(prints.of(order), labels, max_bits, is_news)


class _Groups:
    """Names of groups, joined step by step."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Each group by itself.

        Args:
            records: whose groups may be joined.
        """
        self._parent = {record.group: record.group for record in records}
        self._is_stated = dict.fromkeys(self._parent, False)
        for record in records:
            self._is_stated[record.group] |= is_stated(record)
        self._name = {name: name for name in self._parent}

    def root(self, name: str) -> str:
        """The one that stands for all that are joined.

        Args:
            name: of a group.
        """
        while (parent := self._parent[name]) != name:
            self._parent[name] = self._parent[parent]
            name = parent
        return name

    def name(self, name: str) -> str:
        """What the joined group is called: the stated name that sorts first, or the first of all.

        Args:
            name: of a group.
        """
        return self._name[self.root(name)]

    def join(self, one: str, other: str) -> None:
        """Make one group of two.

        Args:
            one: name of a group.
            other: name of a group.
        """
        low, high = sorted((self.root(one), self.root(other)))
        if low == high:
            return
        both = self._is_stated[low] == self._is_stated[high]
        stated = low if self._is_stated[low] else high
        self._name[low] = min(self._name[low], self._name[high]) if both else self._name[stated]
        self._is_stated[low] |= self._is_stated[high]
        self._parent[high] = low

    def join_unless_stated(self, one: str, other: str) -> None:
        """Make one group of two, if not both were stated.

        Args:
            one: name of a group.
            other: name of a group.
        """
        if not (self._is_stated[self.root(one)] and self._is_stated[self.root(other)]):
            self.join(one, other)

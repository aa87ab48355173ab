"""Which split each image is in, such that no group straddles two; and the check that none does.

Pure: the same groups, labels, fractions and seed give the same splits, whatever the order. Called
by `prepare`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import SPLITS, Entry, Split
from pipelines.data.near_duplicates import Indices
from pipelines.errors import DataError, LeakageError

#: How many offenders an error names.
_NAMED = 3


def assign_splits(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    parts: Sequence[Split] = SPLITS,
) -> list[Split]:
    """The split of each image: whole groups, each label close to the fractions by images.

    Groups are dealt from the largest to the smallest, ties in an order drawn by the seed, each to
    the split that lacks most of its labels. Then, where a label is absent from a split, the group
    is moved there that does least harm.

    Args:
        labels: of each image.
        groups: of each image; a group may hold several labels.
        val_fraction: share of the images wanted in val, in (0, 0.5).
        test_fraction: share of the images wanted in test, in (0, 0.5).
        seed: draws the order of equally large groups.
        parts: the splits to deal into, where some are there already; the fractions of these keep
            their proportions.

    Raises:
        DataError: if there are fewer than two labels, or a label cannot be in every split because
            it has fewer groups than splits or its groups are bound to those of other labels.
    """
    members: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        members[group][label] += 1
    n_groups = Counter(label for counts in members.values() for label in counts)
    totals = Counter(labels)
    _check_enough(n_groups, totals, parts)
    shares = {
        "train": 1 - val_fraction - test_fraction,
        "val": val_fraction,
        "test": test_fraction,
    }
    if len(parts) < len(SPLITS):
        whole = sum(shares[split] for split in parts)
        shares = {split: shares[split] / whole for split in parts}
    #: Images that a split still lacks, by label, as a share of the label's images.
    lack = {split: dict.fromkeys(totals, shares[split]) for split in parts}
    chosen: dict[str, Split] = {}
    for group in sorted(members, key=lambda group: _turn(group, members[group], seed)):
        counts = members[group]
        split = max(parts, key=lambda split: _need(counts, lack[split], totals))
        chosen[group] = split
        for label, count in counts.items():
            lack[split][label] -= count / totals[label]
    _fill_empty(chosen, members, totals, shares, parts)
    return [chosen[group] for group in groups]


def _check_enough(
    n_groups: Mapping[str, int], totals: Mapping[str, int], parts: Sequence[Split]
) -> None:
    if len(totals) < 2:
        named = ", ".join(totals) or "none"
        raise DataError(
            f"there are images of {len(totals)} class(es) ({named}); expected at least 2, since "
            f"one class cannot be told apart. Fetch images of the other classes."
        )
    for label in sorted(totals):
        if n_groups[label] < len(parts):
            raise DataError(
                f"class {label!r} has {n_groups[label]} group(s) with {totals[label]} image(s) "
                f"after duplicates were joined; expected at least {len(parts)} groups, one for "
                f"each of {', '.join(parts)}. Add images of other subjects, or leave the class "
                f"out by `classes:` in params.yaml."
            )


def _turn(group: str, counts: Counter[str], seed: int) -> tuple[int, int, bytes]:
    # Groups of several labels first: they are the hardest to place.
    draw = hashlib.sha256(f"{seed}\t{group}".encode(errors="surrogateescape")).digest()
    return (-len(counts), -counts.total(), draw)


def _need(counts: Mapping[str, int], lack: Mapping[str, float], totals: Mapping[str, int]) -> float:
    """How much a split wants a group; rounded, so that ties are ties on every machine.

    It is the fall of the sum over labels and splits of the squared relative deviation, up to what
    all splits have in common.
    """
    return round(sum(count / totals[label] * lack[label] for label, count in counts.items()), 12)


def _fill_empty(
    chosen: dict[str, Split],
    members: Mapping[str, Counter[str]],
    totals: Mapping[str, int],
    shares: Mapping[str, float],
    parts: Sequence[Split],
) -> None:
    """Give each label a group in each split, by moves that leave no other label without one."""
    held = {split: Counter[str]() for split in parts}
    images = {split: Counter[str]() for split in parts}
    for group, split in chosen.items():
        held[split].update(members[group].keys())
        images[split].update(members[group])

    def harm(group: str, target: Split) -> tuple[float, str]:
        source = chosen[group]
        after = 0.0
        for label, count in members[group].items():
            for split, change in ((source, -count), (target, count)):
                share = (images[split][label] + change) / totals[label]
                before = images[split][label] / totals[label]
                after += (share - shares[split]) ** 2 - (before - shares[split]) ** 2
        return (round(after, 12), group)

    for label in sorted(totals):
        for target in parts:
            if held[target][label]:
                continue
            movable = [
                group
                for group, split in chosen.items()
                if label in members[group] and all(held[split][each] > 1 for each in members[group])
            ]
            if not movable:
                raise DataError(
                    f"class {label!r} cannot be in {target}: its groups also hold other classes "
                    f"that would then be missing elsewhere. Expected a group of {label!r} that "
                    f"can move. Add images of other subjects, or leave the class out by "
                    f"`classes:` in params.yaml."
                )
            group = min(movable, key=lambda group: harm(group, target))
            source = chosen[group]
            chosen[group] = target
            for counter, change in (
                (held, Counter(members[group].keys())),
                (images, members[group]),
            ):
                counter[source].subtract(change)
                counter[target].update(change)


def check_contents(entries: Sequence[Entry]) -> None:
    """Pass if no bytes stand in two splits; all that is asked where a card accepts more.

    Args:
        entries: the manifest.

    Raises:
        LeakageError: the first three, and how many.
    """
    _check_once("file content", [(entry.sha256, entry) for entry in entries])


def check_leaks(entries: Sequence[Entry], pairs: Indices) -> None:
    """Pass if no group, no bytes and none of the pairs stand in two splits.

    Args:
        entries: the manifest.
        pairs: (p, 2) indices of near duplicates that must be in one split.

    Raises:
        LeakageError: the first three, and how many.
    """
    _check_once("group", [(entry.group, entry) for entry in entries])
    check_contents(entries)
    leaks = pairs[straddling(entries, pairs)]
    if len(leaks):
        named = "; ".join(
            f"{entries[i].path!r} ({entries[i].split}) and {entries[j].path!r} ({entries[j].split})"
            for i, j in leaks[:_NAMED]
        )
        raise LeakageError(
            f"{len(leaks)} near-duplicate pair(s) stand in two splits ({named}). Expected "
            f"each pair in one split. Run `fieldlens prepare` again; if it stays, it is a bug."
        )


def straddling(entries: Sequence[Entry], pairs: Indices) -> NDArray[np.bool_]:
    """(p,) which pairs stand in two splits.

    Args:
        entries: the manifest.
        pairs: (p, 2) indices.
    """
    split = np.array([SPLITS.index(entry.split) for entry in entries], np.intp)
    apart: NDArray[np.bool_] = split[pairs[:, 0]] != split[pairs[:, 1]]
    return apart


def _check_once(what: str, keyed: Sequence[tuple[str, Entry]]) -> None:
    splits: defaultdict[str, set[Split]] = defaultdict(set)
    for key, entry in keyed:
        splits[key].add(entry.split)
    leaks = sorted(key for key, found in splits.items() if len(found) > 1)
    if leaks:
        named = ", ".join(
            f"{key!r} in {' and '.join(sorted(splits[key]))}" for key in leaks[:_NAMED]
        )
        raise LeakageError(
            f"{len(leaks)} {what}(s) stand in two splits ({named}). Expected each in one split. "
            f"Check group_key and group_pattern in card.yaml, and run `fieldlens prepare` again."
        )

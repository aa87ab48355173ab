"""Which split each image is in, such that no group straddles two; and the check that none does.

Made here, or given by the publisher (the card says ``splits: given``) and completed here: what must
hold of it, what straddles it, and the parts that it lacks. Pure: the same groups, labels, fractions
and seed give the same splits, whatever the order. `make_partition` is what `prepare` calls.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DatasetCard
from pipelines.config.prepare import PrepareParams
from pipelines.data.duplicates import Indices
from pipelines.data.manifest import SPLITS, Entry, Record, Split
from pipelines.errors import DataError, LeakageError

#: How many offenders an error names.
_NAMED = 3


def assign_splits(
    strata: Sequence[Sequence[str]],
    groups: Sequence[str],
    *,
    val_fraction: float,
    test_fraction: float,
    seed: int,
    parts: Sequence[Split] = SPLITS,
) -> list[Split]:
    """The split of each image: whole groups, each stratum close to the fractions by images.

    Groups are dealt from the largest to the smallest, ties in an order drawn by the seed, each to
    the split that lacks most of its strata. Then, where one is absent from a split, the group is
    moved there that does least harm.

    Args:
        strata: of each image, what the splits are balanced by: its class, or all that it shows.
        groups: of each image; a group may hold several strata.
        val_fraction: share of the images wanted in val, in (0, 0.5).
        test_fraction: share of the images wanted in test, in (0, 0.5).
        parts: the splits to deal into, where some are there already; the fractions of these keep
            their proportions.

    Raises:
        DataError: if a stratum cannot be in every split because it has fewer groups than splits or
            its groups are bound to those of others.
    """
    members: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for of_image, group in zip(strata, groups, strict=True):
        members[group].update(of_image)
    n_groups = Counter(label for counts in members.values() for label in counts)
    totals = Counter(label for of_image in strata for label in of_image)
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

    Raises:
        LeakageError: the first three, and how many.
    """
    _check_once("file content", [(entry.sha256, entry) for entry in entries])


def check_leaks(entries: Sequence[Entry], pairs: Indices) -> None:
    """Pass if no group, no bytes and none of the pairs stand in two splits.

    Args:
        pairs: (p, 2) indices of near duplicates that must be in one split.

    Raises:
        LeakageError: the first three, and how many.
    """
    _check_once("group", [(entry.group, entry) for entry in entries])
    check_contents(entries)
    leaks = pairs[in_two_splits(entries, pairs)]
    if len(leaks):
        named = "; ".join(
            f"{entries[i].path!r} ({entries[i].split}) and {entries[j].path!r} ({entries[j].split})"
            for i, j in leaks[:_NAMED]
        )
        raise LeakageError(
            f"{len(leaks)} near-duplicate pair(s) stand in two splits ({named}). Expected "
            f"each pair in one split. Run `fieldlens prepare` again; if it stays, it is a bug."
        )


def in_two_splits(entries: Sequence[Entry], pairs: Indices) -> NDArray[np.bool_]:
    """(p,) which of the (p, 2) pairs of indices stand in two splits."""
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


# -- partition ------------------------------------------------------------------------------------
_LOG = logging.getLogger(__name__)

#: Examples that summary.json lists of each kind.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Straddling:
    """What stands in two parts of a given split, a line each.

    Attributes:
        groups: groups, each with the parts that it is in.
        copies: pairs of files with the same bytes and one label.
        near: pairs of near duplicates.
    """

    groups: tuple[str, ...]
    copies: tuple[str, ...]
    near: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether anything does."""
        return bool(self.groups or self.copies or self.near)

    def as_text(self) -> str:
        """Counts and the first examples, in one line."""
        found = {"group(s)": self.groups, "exact copy pair(s)": self.copies}
        found["near-duplicate pair(s)"] = self.near
        return "; ".join(
            f"{len(lines)} {what} ({', '.join(lines[:_NAMED])})"
            for what, lines in found.items()
            if lines
        )

    def as_json(self) -> dict[str, Any]:
        """Counts and examples for summary.json."""
        found = {"groups": self.groups, "exact_copies": self.copies, "near_duplicates": self.near}
        return {
            **{f"n_{kind}": len(lines) for kind, lines in found.items()},
            "examples": {kind: list(lines[:_LISTED]) for kind, lines in found.items() if lines},
        }


def _check_stated(records: Sequence[Record]) -> list[Split]:
    """The given part of each image.

    Raises:
        DataError: names the first image without a part, or says that there is no train part.
    """
    stated = [record.split for record in records if record.split is not None]
    if len(stated) < len(records):
        first = next(record.path for record in records if record.split is None)
        raise DataError(
            f"the card says `splits: given`, but {len(records) - len(stated)} of {len(records)} "
            f"images are in no part (the first: {first!r}). Expected train, val and test folders, "
            f"or a column `split` in the table. State it for each image, or write `splits: made`."
        )
    if "train" not in stated:
        raise DataError(
            "the card says `splits: given`, and no image is in train. Expected images to train "
            "on. Write `splits: made` to have a split made."
        )
    return stated


def _straddling(
    records: Sequence[Record], sha256s: Sequence[str], near: Iterable[tuple[int, int]]
) -> Straddling:
    """What stands in two parts, of every image that could be decoded, copies too."""
    parts: defaultdict[str, set[str]] = defaultdict(set)
    same: defaultdict[str, list[Record]] = defaultdict(list)
    for record, sha256 in zip(records, sha256s, strict=True):
        parts[record.group].add(str(record.split))
        same[sha256].append(record)
    groups = (
        f"{group!r} in {' and '.join(sorted(found))}"
        for group, found in sorted(parts.items())
        if len(found) > 1
    )
    copies = (
        _pair(first, other)
        for first, *others in same.values()
        # Copies under two labels are all left out.
        if len({record.label for record in (first, *others)}) == 1
        for other in others
        if other.split != first.split
    )
    pairs = ((records[i], records[j]) for i, j in near)
    alike = (_pair(one, other) for one, other in pairs if one.split != other.split)
    return Straddling(tuple(groups), tuple(copies), tuple(alike))


def _check_labels(
    labels: Sequence[str], found: Sequence[Sequence[str]], splits: Sequence[Split]
) -> None:
    """Nothing, if every label has images in every part; found are the strata of each image.

    Raises:
        DataError: names each label and its counts.
    """
    counts = Counter(
        (label, split) for of_image, split in zip(found, splits, strict=True) for label in of_image
    )
    lacking = [
        f"{label!r} ({', '.join(f'{split} {counts[label, split]}' for split in SPLITS)})"
        for label in labels
        if not all(counts[label, split] for split in SPLITS)
    ]
    if lacking:
        raise DataError(
            f"the given split has no image of a class in one of its parts: {', '.join(lacking)}. "
            f"Expected images of each class in train, val and test. Add some, leave the class out "
            f"by `classes:` in params.yaml, or write `splits: made` in the card."
        )


def _pair(one: Record, other: Record) -> str:
    return f"{one.path!r} ({one.split}) and {other.path!r} ({other.split})"


@dataclass(frozen=True, slots=True)
class Partition:
    """Which split each image is in, and who says so.

    Attributes:
        by: ``given`` by the publisher or ``made`` here.
        filled: parts that the publisher does not have, made from train.
        straddling: what stands in two parts of a given split; None where splits are made.
        accepted: why that is accepted; None where nothing is.
        is_pooled: whether the publisher has a split that the card does not ask for.
    """

    splits: tuple[Split, ...]
    by: Literal["given", "made"]
    filled: tuple[Split, ...] = ()
    straddling: Straddling | None = None
    accepted: str | None = None
    is_pooled: bool = False

    def as_json(self) -> dict[str, Any]:
        """For summary.json."""
        if self.straddling is None:
            return {"by": self.by, "is_pooled": self.is_pooled}
        return {
            "by": self.by,
            "made_from_train": list(self.filled),
            "straddling": self.straddling.as_json(),
            "straddling_accepted": self.accepted,
            "copy_left_out": "the one in train, or else the one in val",
        }


def make_partition(
    card: DatasetCard,
    labels: Sequence[str],
    seen: Sequence[Record],
    sha256s: Sequence[str],
    kept: Sequence[int],
    groups: Sequence[str],
    pairs: Indices,
    strata: Callable[[Record], Sequence[str]],
    params: PrepareParams,
    seed: int,
) -> Partition:
    """The split of each image that is kept.

    Args:
        seen: every image that could be decoded, copies too.
        sha256s: of each.
        kept: indices of those that are kept.
        groups: of each image that is kept, after near duplicates were joined.
        pairs: (p, 2) indices of near duplicates among those that are kept.
        strata: of an image, by its kind.

    Raises:
        DataError: if a class cannot be in every split.
        LeakageError: if a given split straddles and the card does not accept it.
    """
    records = [seen[index] for index in kept]

    def make(of: Sequence[int], parts: Sequence[Split]) -> list[Split]:
        return assign_splits(
            [strata(records[index]) for index in of],
            [groups[index] for index in of],
            val_fraction=params.val_fraction,
            test_fraction=params.test_fraction,
            seed=seed,
            parts=parts,
        )

    if card.splits == "made":
        is_pooled = any(record.split is not None for record in seen)
        if is_pooled:
            _LOG.info("%s: the publisher's parts are pooled: the card says `made`", card.task)
        return Partition(tuple(make(range(len(kept)), SPLITS)), "made", is_pooled=is_pooled)
    splits = _check_stated(records)
    near = [(kept[i], kept[j]) for i, j in pairs.tolist()]
    found = _straddling(seen, sha256s, near)
    if found and card.straddling_accepted is None:
        raise LeakageError(
            f"the given split is leaky: {found.as_text()} stand in two parts, so figures "
            f"of the test part would be too good. Mend the split; or write `splits: made` in the "
            f"card; or, to keep it as published, say why in `straddling_accepted`."
        )
    if found:
        _LOG.warning(
            "%s: the given split is leaky, which the card accepts (%s): %s stand in two parts; of "
            "exact copies the one in train is left out",
            *(card.task, card.straddling_accepted, found.as_text()),
        )
    filled = tuple(split for split in SPLITS if split not in splits)
    if filled:
        of_train = [index for index, split in enumerate(splits) if split == "train"]
        for index, split in zip(of_train, make(of_train, ("train", *filled)), strict=True):
            splits[index] = split
        _LOG.info("%s: %s made from train, by group", card.task, " and ".join(filled))
    _check_labels(labels, [strata(record) for record in records], splits)
    accepted = card.straddling_accepted if found else None
    return Partition(tuple(splits), "given", filled, found, accepted)

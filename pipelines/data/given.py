"""The publisher's split, kept: what must hold of it, what straddles it, and parts that it lacks.

Pure. Called by `prepare` where the card says ``splits: given``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.data.manifest import SPLITS, Record, Split
from pipelines.errors import DataError, LeakageError

#: Offenders that an error names.
_NAMED = 3
#: Examples that summary.json lists of each kind.
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Straddling:
    """What stands in two parts of a given split.

    Attributes:
        groups: groups, each with the parts that it is in, as one line.
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


def check_stated(records: Sequence[Record]) -> list[Split]:
    """The given part of each image.

    Args:
        records: of the task.

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


def straddling(
    records: Sequence[Record], sha256s: Sequence[str], near: Iterable[tuple[int, int]]
) -> Straddling:
    """What stands in two parts.

    Args:
        records: every image that could be decoded, copies too.
        sha256s: of each.
        near: pairs of indices of near duplicates.
    """
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


def refuse(found: Straddling) -> None:
    """Raise, if anything straddles.

    Args:
        found: by `straddling`.

    Raises:
        LeakageError: counts, and the first examples of each kind.
    """
    if found:
        raise LeakageError(
            f"the given split is leaky: {found.as_text()} stand in two parts, so figures "
            f"of the test part would be too good. Mend the split; or write `splits: made` in the "
            f"card; or, to keep it as published, say why in `straddling_accepted`."
        )


def fill_parts(
    given: Sequence[Split], make: Callable[[list[int], tuple[Split, ...]], list[Split]]
) -> tuple[list[Split], tuple[Split, ...]]:
    """The part of each image, after parts that nobody gave were made from train.

    Args:
        given: part of each image.
        make: from indices and the parts wanted of them, the part of each.

    Returns:
        The parts, and those that were made.
    """
    absent = tuple(split for split in SPLITS if split not in given)
    if not absent:
        return list(given), ()
    splits = list(given)
    of_train = [index for index, split in enumerate(given) if split == "train"]
    for index, split in zip(of_train, make(of_train, ("train", *absent)), strict=True):
        splits[index] = split
    return splits, absent


def check_labels(labels: Sequence[str], found: Sequence[str], splits: Sequence[Split]) -> None:
    """Nothing, if every label has images in every part.

    Args:
        labels: of the task.
        found: label of each image.
        splits: part of each image.

    Raises:
        DataError: names each label and its counts.
    """
    counts = Counter(zip(found, splits, strict=True))
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

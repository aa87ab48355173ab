"""Another folder of labelled images: which of them count as new to a released model.

Set aside are files that are no images, copies within the folder, copies of images that the project
has (they are no news to the model), and classes that the model was not taught. Called by
`validate`; nothing here writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DatasetCard
from pipelines.data import duplicates
from pipelines.data.account import Account, account
from pipelines.data.decoding import Seen, by_patient, decode, entries_of
from pipelines.data.duplicates import drop_exact, join_groups, linked_by_copies
from pipelines.data.fingerprints import stack
from pipelines.data.manifest import Entry
from pipelines.data.pixel_range import AS_IT_COMES, Reading
from pipelines.data.tree import File, files_of
from pipelines.errors import DataError, MissingDataError
from pipelines.kinds.prepare import KINDS
from pipelines.validation.external import Excluded

#: Reasons that name another image, without it.
_IN_SHORT: dict[str, str] = {
    "known": "copies of the project's images",
    "copy": "copies within the folder",
    "unknown_label": "of a class that the model was not taught",
}


@dataclass(frozen=True, slots=True)
class Project:
    """The images that the model's project has: its manifest, and where their files may lie."""

    entries: Sequence[Entry]
    raw_dir: Path


@dataclass(frozen=True, slots=True)
class NewImages:
    """A folder, sifted.

    Attributes:
        entries: the images that count, by path; near duplicates share a group.
        excluded: the others, by path.
        sought: how far copies of the project's images were looked for, in words.
        files: every file of the folder.
        label_of: label of each listed image, by path.
    """

    entries: tuple[Entry, ...]
    excluded: tuple[Excluded, ...]
    sought: str
    files: tuple[File, ...]
    label_of: Mapping[str, str]

    def account(self, refused: Iterable[Excluded] = ()) -> Account:
        """What became of every file; ``refused`` counted, and could not be used later."""
        excluded = {each.path: each for each in (*self.excluded, *refused)}
        read = {entry.path: entry.label for entry in self.entries if entry.path not in excluded}
        left_out = {
            path: (self.label_of[path], _IN_SHORT.get(each.kind, each.reason))
            for path, each in excluded.items()
        }
        return account(self.files, read, left_out, read.values())


def sift(
    folder: Path,
    card: DatasetCard,
    labels: Sequence[str],
    project: Project | None,
    *,
    min_side_px: int,
    near_duplicate_bits: int,
    reading: Reading = AS_IT_COMES,
) -> NewImages:
    """The images of a folder that count, and why the others do not.

    Args:
        folder: as `prepare` reads a raw one of the card's kind.
        labels: that the model knows.
        project: images that the model may have seen; None where it is not known.

    Raises:
        MissingDataError: if there is no such folder.
        DataError: if it holds a class that the card does not know, or no image that counts.
    """
    kind = KINDS[card.kind]
    filed = kind.names(labels)
    if not folder.is_dir():
        expected = (
            f"a folder a class ({', '.join(card.labels)}), or records.csv"
            if filed == tuple(labels)
            else f"images with what is true of them, as `fieldlens prepare {card.task}` reads them"
        )
        raise MissingDataError(f"{folder}: there is no such folder. Expected {expected}.")
    # A part of a published split means nothing to a model that was not trained on it.
    listed = [replace(each, split=None) for each in kind.records(folder, card, is_whole=False)]
    excluded = [
        Excluded(
            path=each.path, kind="unknown_label", reason=f"the model was not taught {each.label!r}"
        )
        for each in listed
        if each.label not in filed
    ]
    record_of = {each.path: each for each in listed if each.label in filed}
    what = f"{card.task}: decoding the folder"
    seen, refused = decode(folder, sorted(record_of), min_side_px, reading, what)
    excluded += [Excluded(path=each.path, kind="refused", reason=each.reason) for each in refused]
    record_of |= by_patient(record_of, seen, folder)
    labels_of = {path: record.label for path, record in record_of.items()}
    known, sought = _known(seen, labels_of, project, near_duplicate_bits, reading, card)
    excluded += [Excluded(path=path, kind="known", reason=reason) for path, reason in known.items()]
    new = [each for each in seen if each.path not in known]
    records = [record_of[each.path] for each in new]
    sha256s = [each.sha256 for each in new]
    dropped = {each.index: each.reason for each in drop_exact(records, sha256s)}
    excluded += [
        Excluded(path=new[index].path, kind="copy", reason=reason)
        for index, reason in dropped.items()
    ]
    kept = [each for index, each in enumerate(new) if index not in dropped]
    if not kept:
        raise _none_counts(folder, len(listed), excluded)
    kept_records = [each for index, each in enumerate(records) if index not in dropped]
    joined = join_groups(
        kept_records,
        stack(each.fingerprint for each in kept),
        near_duplicate_bits,
        linked_by_copies(records, sha256s),
        left_out=records,
        policy=card.near_duplicates,
    )
    return NewImages(
        entries=tuple(entries_of(kept, kept_records, joined.groups, ["test"] * len(kept))),
        excluded=tuple(sorted(excluded, key=lambda each: each.path)),
        sought=sought,
        files=tuple(files_of(folder)),
        label_of={each.path: each.label for each in listed},
    )


def _none_counts(folder: Path, n_listed: int, excluded: Sequence[Excluded]) -> DataError:
    counts = Counter(each.kind for each in excluded)
    why = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in sorted(counts.items()))
    return DataError(
        f"{folder}: of {n_listed} images none counts ({why}; the first: {excluded[0].path!r}: "
        f"{excluded[0].reason}). Expected images that are new to the model."
    )


# -- copies of the project's images ---------------------------------------------------------------
def _known(
    seen: Sequence[Seen],
    labels_of: Mapping[str, str],
    project: Project | None,
    max_bits: int,
    reading: Reading,
    card: DatasetCard,
) -> tuple[dict[str, str], str]:
    """By path, of which of the project's images it is a copy; and how far that was looked for."""
    if project is None:
        return {}, "not at all: the project's manifest is not here"
    by_hash = {entry.sha256: entry for entry in project.entries}
    known = {
        each.path: f"the same bytes as {_where(by_hash[each.sha256])}"
        for each in seen
        if each.sha256 in by_hash
    }
    if card.near_duplicates == "off":
        return known, "exact copies only: the card says near_duplicates: off"
    raw_dir = project.raw_dir
    entry_of = {each.path: each for each in project.entries if (raw_dir / each.path).is_file()}
    if not entry_of:
        return known, "exact copies only: the project's images are not here"
    what = f"{card.task}: fingerprints of the project's images"
    decoded, _ = decode(raw_dir, list(entry_of), 1, reading, what)
    own = [entry_of[each.path] for each in decoded]
    others = [each for each in seen if each.path not in known]
    n = len(own)

    def is_across(left: NDArray[np.intp], right: NDArray[np.intp]) -> NDArray[np.bool_]:
        across: NDArray[np.bool_] = (left < n) & (right >= n)
        return across

    near = duplicates.find(
        stack(each.fingerprint for each in (*decoded, *others)),
        [*(entry.label for entry in own), *(labels_of[each.path] for each in others)],
        max_bits,
        is_across,
    )
    for mine, theirs in zip(near.left, near.right - n, strict=True):
        known.setdefault(others[theirs].path, f"a near duplicate of {_where(own[mine])}")
    missing = len(project.entries) - len(own)
    if missing:
        return known, (
            f"exact copies of all, near duplicates of {len(own)} of the project's "
            f"{len(project.entries)} images: {missing} are not here"
        )
    return known, f"exact and near duplicates of all {len(own)} images of the project"


def _where(entry: Entry) -> str:
    return f"{entry.path!r} ({entry.split})"

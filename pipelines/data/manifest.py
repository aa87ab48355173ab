"""Which images there are, what they show, what they belong to, and the split they are in.

`Record` is what a task module gives; `Entry` is a row of manifest.csv. Reading a raw folder
(`read_raw`) is generic and driven by the card, so that most task modules have nothing to add.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DatasetCard
from pipelines.errors import DataError, MissingDataError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: Present in a raw folder, it states path, label and group and is believed before folder names.
RECORDS_FILE = "records.csv"
#: Written by `fetch` last; says where the images come from.
SOURCE_FILE = "SOURCE.json"

#: Looked at as images in a raw folder; content decides later, so that a wrong suffix does no harm.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo"}
)


@dataclass(frozen=True, slots=True)
class Record:
    """One raw image, as its task module understands it.

    Attributes:
        path: POSIX path relative to raw/.
        label: one of the card's labels.
        group: what must not straddle splits (patient, leaf, track, ...); unique across labels'
            namespaces only if the publisher's is.
        source: the collection or device that the image comes from; empty if unknown.
        split: that the publisher put it in; None where splits are made.
    """

    path: str
    label: str
    group: str
    source: str = ""
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted image: a row of manifest.csv.

    Attributes:
        path: POSIX path relative to raw/.
        label: one of the labels that the task uses.
        group: group after near duplicates were joined.
        source: as in `Record`.
        split: train, val or test.
        sha256: of the file's bytes, hexadecimal.
        width_px: stored width.
        height_px: stored height.
    """

    path: str
    label: str
    group: str
    source: str
    split: Split
    sha256: str
    width_px: int
    height_px: int


_COLUMNS = [field.name for field in fields(Entry)]


def read_raw(raw_dir: Path, card: DatasetCard) -> list[Record]:
    """The records of a raw folder: from records.csv if present, from ``<class>/…`` folders else.

    The group comes from records.csv, else from the card's ``group_pattern``, else each file is a
    group of its own.

    Args:
        raw_dir: datasets/<task>/raw.
        card: maps folder names to labels.

    Returns:
        Records sorted by path. Labels outside the card are an error; files outside a class folder,
        files without an image suffix and hidden names (``.git``, ``._photo.jpg``) are not looked
        at.

    Raises:
        MissingDataError: if the folder is not there.
        DataError: if a folder or a row names a class that the card does not know, or records.csv
            is not CSV text in UTF-8.
    """
    if not raw_dir.is_dir():
        raise MissingDataError(
            f"{raw_dir}: there are no raw images. Run `fieldlens fetch {card.task}` first."
        )
    table = raw_dir / RECORDS_FILE
    records = _read_table(table, card) if table.is_file() else _read_folders(raw_dir, card)
    if not records:
        raise DataError(
            f"{raw_dir}: no image was found. Expected {RECORDS_FILE} or a folder a class "
            f"({', '.join(card.labels)})."
        )
    return sorted(records, key=lambda record: record.path)


def _read_table(table: Path, card: DatasetCard) -> list[Record]:
    try:
        return _read_rows(table, card)
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(
            f"{table}: expected CSV text in UTF-8 ({err}). Save it again as UTF-8."
        ) from err


def _read_rows(table: Path, card: DatasetCard) -> list[Record]:
    # Spreadsheets put a byte order mark before the first column's name.
    with table.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = set(reader.fieldnames or ())
        absent = {"path", "label"} - columns
        if absent:
            raise DataError(
                f"{table}: expected the columns path, label[, group, source], "
                f"without {', '.join(sorted(absent))} it cannot be used."
            )
        records = []
        for line, row in enumerate(reader, start=2):
            label = card.label_of(row["label"] or "")
            if label is None:
                raise DataError(_unknown_class(f"{table}:{line}", row["label"], card))
            path = _inside(row["path"] or "", f"{table}:{line}")
            records.append(
                Record(
                    path, label, row.get("group") or _group_of(path, card), row.get("source") or ""
                )
            )
    return records


def _inside(path: str, where: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise DataError(f"{where}: the path {path!r} must be relative and stay inside raw/.")
    return str(PurePosixPath(*parts))


def _read_folders(raw_dir: Path, card: DatasetCard) -> list[Record]:
    records = []
    for folder in sorted(entry for entry in raw_dir.iterdir() if entry.is_dir()):
        if folder.name.startswith("."):
            continue
        label = card.label_of(folder.name)
        if label is None:
            raise DataError(_unknown_class(str(folder), folder.name, card))
        for file in sorted(folder.rglob("*")):
            relative = file.relative_to(raw_dir)
            is_hidden = any(part.startswith(".") for part in relative.parts)
            if file.suffix.lower() in IMAGE_SUFFIXES and not is_hidden and not file.is_dir():
                path = relative.as_posix()
                records.append(Record(path, label, _group_of(path, card)))
    return records


def _unknown_class(where: str, name: str | None, card: DatasetCard) -> str:
    return (
        f"{where}: no class of the card is called {name!r}. Expected one of "
        f"{', '.join(card.labels)}, or a source_names entry in datasets/{card.task}/card.yaml."
    )


def _group_of(path: str, card: DatasetCard) -> str:
    if card.group_pattern is None:
        return path
    match = re.search(card.group_pattern, path)
    return match["group"] if match and match["group"] else path


def write_manifest(entries: Sequence[Entry]) -> str:
    """Entries as CSV text, sorted by path.

    Args:
        entries: in any order.
    """
    buffer = io.StringIO()
    buffer.write(",".join(_COLUMNS) + "\n")
    # Quoted always: left to itself, the writer leaves a carriage return in a name bare, and the
    # reader takes it for the end of the row.
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for entry in sorted(entries, key=lambda entry: entry.path):
        writer.writerow([getattr(entry, column) for column in _COLUMNS])
    return buffer.getvalue()


def read_manifest(path: Path) -> list[Entry]:
    """The rows of a manifest.csv.

    Args:
        path: datasets/<task>/prepared/manifest.csv.

    Raises:
        MissingDataError: if it is not there.
        DataError: if its columns are not those of `Entry`.
    """
    if not path.is_file():
        task = path.parent.parent.name
        raise MissingDataError(
            f"{path}: there is no manifest. Run `fieldlens prepare {task}` first."
        )
    # A file name need not be UTF-8; what `atomic.write_text` let through comes back the same.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        reader = csv.DictReader(stream)
        if reader.fieldnames != _COLUMNS:
            raise DataError(
                f"{path}: expected the columns {', '.join(_COLUMNS)} "
                f"(got {', '.join(reader.fieldnames or ())})."
            )
        return [
            Entry(**{**row, "width_px": int(row["width_px"]), "height_px": int(row["height_px"])})  # type: ignore[arg-type]
            for row in reader
        ]


def in_split(entries: Iterable[Entry], split: Split) -> list[Entry]:
    """The entries of one split, in their order.

    Args:
        entries: of any split.
        split: the one wanted.
    """
    return [entry for entry in entries if entry.split == split]


def class_index_of(entries: Iterable[Entry], labels: Sequence[str]) -> NDArray[np.int64]:
    """The labels as the numbers of their logits.

    Args:
        entries: each with one of ``labels``.
        labels: in the order of the logits.

    Returns:
        (n,), in [0, len(labels)).
    """
    number = {label: index for index, label in enumerate(labels)}
    return np.array([number[entry.label] for entry in entries], dtype=np.int64)


def content_sha256(entries: Iterable[Entry]) -> str:
    """One hash over what the images are, what they are called and where they stand.

    Args:
        entries: in any order; the order does not change the hash.
    """
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        digest.update(f"{entry.sha256}\t{entry.label}\t{entry.split}\n".encode())
    return digest.hexdigest()

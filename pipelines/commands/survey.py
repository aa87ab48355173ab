"""A look at a folder of somebody's images: its classes, counts, sizes, modes and formats.

Reads headers, not pixels; `prepare` decodes. Called by `new` and `workspace`.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.manifest import IMAGE_SUFFIXES, RECORDS_FILE
from pipelines.data.opening import file_header
from pipelines.errors import ConfigError, CorruptImageError, DataError, MissingDataError

#: Headers read of each class: enough to see what kind of picture it is.
MAX_HEADERS = 200
#: One image for each of train, val and test.
MIN_IMAGES = 3


@dataclass(frozen=True, slots=True)
class FoundClass:
    """One class as it lies on the disk.

    Attributes:
        label: slug made of the name.
        name: of the folder, or in the column ``label`` of records.csv.
        n_images: files with an image suffix, or rows.
    """

    label: str
    name: str
    n_images: int


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder holds.

    Attributes:
        classes: sorted by label.
        has_records: whether records.csv speaks for the folder.
        has_groups: whether records.csv has a column ``group``.
        formats: header formats and how often they were seen, e.g. ``JPEG 40``.
        modes: Pillow's modes, likewise.
        smallest_px: shorter side of the smallest picture, in px; 0 if none could be read.
        largest_px: longer side of the largest.
        n_unreadable: of the headers looked at, those that are of no known format.
    """

    classes: tuple[FoundClass, ...]
    has_records: bool
    has_groups: bool
    formats: Counter[str]
    modes: Counter[str]
    smallest_px: int
    largest_px: int
    n_unreadable: int

    @property
    def n_images(self) -> int:
        """Images of all classes."""
        return sum(found.n_images for found in self.classes)


def files_by_class(folder: Path) -> tuple[dict[str, list[Path]], bool]:
    """Image files by the class name that the folder gives them, and whether groups are stated.

    Args:
        folder: holds records.csv, or a folder a class.

    Raises:
        MissingDataError: if there is no such folder.
        DataError: if records.csv lacks a column or is not text.
    """
    if not folder.is_dir():
        raise MissingDataError(
            f"{folder}: there is no such folder. Expected a folder with a sub-folder a class, or "
            f"with {RECORDS_FILE}."
        )
    table = folder / RECORDS_FILE
    if table.is_file():
        return _from_table(table)
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not entry.name.startswith("."):
            files = [file for file in entry.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES]
            if files:
                found[entry.name] = sorted(file for file in files if not file.is_dir())
    return found, False


def _from_table(table: Path) -> tuple[dict[str, list[Path]], bool]:
    found: dict[str, list[Path]] = {}
    try:
        with table.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = set(reader.fieldnames or ())
            if not {"path", "label"} <= columns:
                raise DataError(
                    f"{table}: expected the columns path, label[, group] "
                    f"(got {', '.join(sorted(columns)) or 'none'})."
                )
            for row in reader:
                if row["label"]:
                    found.setdefault(row["label"], []).append(table.parent / (row["path"] or ""))
    except (UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{table}: is not a CSV table in UTF-8 ({err}).") from err
    return found, "group" in columns


def look(folder: Path) -> Survey:
    """What a folder of images holds.

    Args:
        folder: holds records.csv, or a folder a class.

    Raises:
        MissingDataError: if there is no such folder.
        DataError: if it has fewer than two classes, or a class fewer than `MIN_IMAGES` images.
        ConfigError: if two class names give one label, or one gives none.
    """
    by_name, has_groups = files_by_class(folder)
    if len(by_name) < 2:
        names = ", ".join(by_name) or "none"
        raise DataError(
            f"{folder}: expected at least 2 classes with images (got {len(by_name)}: {names}). "
            f"One class cannot be told apart: give a sub-folder a class, or {RECORDS_FILE}."
        )
    for name, files in by_name.items():
        if len(files) < MIN_IMAGES:
            raise DataError(
                f"{folder}: class {name!r}: expected at least {MIN_IMAGES} images, one for each of "
                f"train, val and test (got {len(files)}). Add images or remove the class."
            )
    labels = _labels(list(by_name), folder)
    headers = [_header(file) for files in by_name.values() for file in _spread(files)]
    read = [header for header in headers if header is not None]
    return Survey(
        classes=tuple(
            sorted(
                (
                    FoundClass(label, name, len(by_name[name]))
                    for name, label in zip(by_name, labels, strict=True)
                ),
                key=lambda found: found.label,
            )
        ),
        has_records=(folder / RECORDS_FILE).is_file(),
        has_groups=has_groups,
        formats=Counter(image_format for image_format, _, _ in read),
        modes=Counter(mode for _, mode, _ in read),
        smallest_px=min((min(size) for _, _, size in read), default=0),
        largest_px=max((max(size) for _, _, size in read), default=0),
        n_unreadable=len(headers) - len(read),
    )


def slug(name: str) -> str:
    """A name in the form of a label: lower case, digits and ``_``, a letter first; may be empty.

    Args:
        name: of a folder, e.g. ``Late blight (2021)``.
    """
    return re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_").lstrip("0123456789_")[:60]


def _labels(names: Sequence[str], folder: Path) -> list[str]:
    labels = [slug(name) for name in names]
    for name, label in zip(names, labels, strict=True):
        if not label or not name.isprintable():
            raise ConfigError(
                f"{folder}: class {name!r}: no label can be made of it. Expected printable text "
                f"with a letter from a to z; rename it."
            )
        if labels.count(label) > 1:
            twins = [repr(other) for other in names if slug(other) == label]
            raise ConfigError(
                f"{folder}: {' and '.join(twins)} would both be the label {label!r}. "
                f"Rename or join them."
            )
    return labels


def _spread(files: Sequence[Path]) -> Sequence[Path]:
    """At most `MAX_HEADERS` files, evenly spread."""
    step = max(1, -(-len(files) // MAX_HEADERS))
    return files[::step]


def _header(file: Path) -> tuple[str, str, tuple[int, int]] | None:
    try:
        header = file_header(file, file.name)
    except CorruptImageError:
        return None
    return header.format, header.mode, header.size

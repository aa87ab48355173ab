"""A folder of labelled images, read: which file shows what, and what the other files are.

The one reader for `new`, `workspace`, `fetch`, `prepare` and `validate`. Four layouts are known:

- a table speaks: records.csv, metadata.csv or metadata.jsonl at the top, or one in each of the
  folders of a published split;
- a folder a class;
- train, val and test folders, with a folder a class below each;
- a folder a class, with train, val and test folders below each.

The last three need no table; where one is there, it is believed before folders.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pipelines.card import DatasetCard
from pipelines.data.names import TABLES, Split, split_named
from pipelines.data.tables import NoLabelsError, Table, find_files, read_table
from pipelines.data.tree import File, files_of
from pipelines.errors import DataError

LayoutKind = Literal["table", "class_folders", "split_folders", "splits_in_classes"]
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image as the folder itself describes it.

    Attributes:
        path: POSIX path relative to the folder.
        name: of its class, as the folder or the table has it, in Unicode's form NFC.
        group: that the table states; empty where it states none.
        source: likewise.
        split: that the publisher put it in, if any.
        where: the folder, or the table and its line, for messages.
        cells: of the table's row, by the names of its columns.
    """

    path: str
    name: str
    group: str
    source: str
    split: Split | None
    where: str
    cells: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a folder says.

    Attributes:
        kind: how it is laid out.
        images: those with a class, sorted by path; a table's row whose file is not there too.
        files: every file of the folder.
        has_groups: whether a table states groups.
        table: name of the table; empty where none speaks.
    """

    kind: LayoutKind
    images: tuple[Labelled, ...]
    files: tuple[File, ...]
    has_groups: bool
    table: str = ""

    @property
    def has_splits(self) -> bool:
        """Whether the publisher's split is stated."""
        return any(image.split is not None for image in self.images)

    @property
    def by_class(self) -> dict[str, list[Labelled]]:
        """The images of each class, by its name, in sorted order."""
        found: dict[str, list[Labelled]] = {
            name: [] for name in sorted({image.name for image in self.images})
        }
        for image in self.images:
            found[image.name].append(image)
        return found

    @property
    def without_images(self) -> dict[str, list[File]]:
        """Folders that stand where classes do and hold files, but no image; with these files."""
        if self.kind == "table":
            return {}
        depth = 1 if self.kind == "split_folders" else 0
        found: dict[str, list[File]] = {}
        for file in self.files:
            if len(file.path.parts) > depth + 1 and file.kind not in {"hidden", "system"}:
                found.setdefault(_nfc(file.path.parts[depth]), []).append(file)
        with_images = {image.name for image in self.images}
        return {name: files for name, files in found.items() if name not in with_images}


def read_folder(folder: Path, card: DatasetCard | None = None) -> Layout:
    """What a folder of labelled images holds.

    Args:
        folder: to read; it must be there.
        card: knows the classes, which tells a class called ``train`` from a split; None where
            there is none yet.

    Raises:
        DataError: if a table cannot be used, a file is listed twice, folders of splits and others
            stand side by side, or a folder cannot be read.
    """
    files = files_of(folder)
    tables = _tables(files)
    if tables:
        try:
            return _by_table(folder, files, tables)
        except NoLabelsError:
            # Of our own records.csv it is a fault; a metadata.csv may be about something else.
            if any(table.name.casefold() == TABLES[0] for table in tables):
                raise
            by_folders = _by_folders(folder, files, card)
            if not by_folders.images:
                raise
            return by_folders
    return _by_folders(folder, files, card)


# -- by a table -----------------------------------------------------------------------------------
def _tables(files: Iterable[File]) -> list[PurePosixPath]:
    """The table at the top, or else those in the folders of a split."""
    found = [file.path for file in files if file.kind == "table"]
    for depth in (1, 2):
        for name in TABLES:
            same = [
                path for path in found if len(path.parts) == depth and path.name.casefold() == name
            ]
            if same:
                return same
    return []


def _by_table(folder: Path, files: Sequence[File], tables: Sequence[PurePosixPath]) -> Layout:
    images: list[Labelled] = []
    has_groups = False
    for path in tables:
        table = read_table(folder / path)
        has_groups |= table.has_groups
        images += _listed(table, path, files, folder)
    _check_once(images, folder)
    # Folders of a split may speak where the table does not.
    by_folder = [split_named(PurePosixPath(image.path).parts[0]) for image in images]
    if all(by_folder) and not any(image.split for image in images):
        images = [
            replace(image, split=split) for image, split in zip(images, by_folder, strict=True)
        ]
    images.sort(key=lambda image: image.path)
    return Layout("table", tuple(images), tuple(files), has_groups, tables[0].name)


def _listed(
    table: Table, path: PurePosixPath, files: Sequence[File], folder: Path
) -> list[Labelled]:
    where = folder / path
    found = find_files(table.rows, files, path.parent, where)
    return [
        Labelled(
            file,
            _nfc(row.label),
            row.group,
            row.source,
            row.split,
            f"{where}:{row.line}",
            row.cells,
        )
        for row, file in zip(table.rows, found, strict=True)
        if row.label
    ]


def _check_once(images: Sequence[Labelled], folder: Path) -> None:
    counts = Counter(image.path for image in images)
    twice = sorted(path for path, n in counts.items() if n > 1)
    if twice:
        raise DataError(
            f"{folder}: {len(twice)} path(s) are listed more than once "
            f"({', '.join(map(repr, twice[:_NAMED]))}). Expected one row an image, with one label. "
            f"Mend the list."
        )


# -- by folders -----------------------------------------------------------------------------------
def _by_folders(folder: Path, files: Sequence[File], card: DatasetCard | None) -> Layout:
    paths = [file.path for file in files if file.kind == "image" and len(file.path.parts) > 1]
    kind = _kind(folder, paths, card)
    images = []
    for path in paths:
        split, name = None, path.parts[0]
        if kind == "split_folders":
            if len(path.parts) == 2:
                continue
            split, name = split_named(path.parts[0]), path.parts[1]
        elif kind == "splits_in_classes":
            split = split_named(path.parts[1])
        where = str(folder.joinpath(*path.parts[: 2 if kind == "split_folders" else 1]))
        images.append(Labelled(str(path), _nfc(name), "", "", split, where))
    return Layout(kind, tuple(images), tuple(files), has_groups=False)


def _kind(folder: Path, paths: Sequence[PurePosixPath], card: DatasetCard | None) -> LayoutKind:
    tops = {path.parts[0] for path in paths}
    if card is not None and tops and all(card.label_of(top) is not None for top in tops):
        tops_of_splits = set[str]()
    else:
        tops_of_splits = {top for top in tops if split_named(top) is not None}
    others = tops - tops_of_splits
    if tops_of_splits and not others:
        return "split_folders"
    if len({split_named(top) for top in tops_of_splits}) > 1:
        raise DataError(
            f"{folder}: {', '.join(sorted(tops_of_splits))} look like the parts of a split, but "
            f"{', '.join(map(repr, sorted(others)[:_NAMED]))} stands beside them. Expected a "
            f"folder a class, or train, val and test folders with a folder a class below each. "
            f"Take out what does not belong."
        )
    below = Counter(split_named(path.parts[1]) if len(path.parts) > 2 else None for path in paths)
    n_splits = len(set(below) - {None})
    if n_splits > 1:
        if below[None]:
            odd = next(p for p in paths if len(p.parts) < 3 or split_named(p.parts[1]) is None)
            raise DataError(
                f"{folder}: of {len(paths)} images {len(paths) - below[None]} are in train, val or "
                f"test folders below their classes, and {below[None]} are not (the first: "
                f"{str(odd)!r}). Expected all or none. Move them."
            )
        return "splits_in_classes"
    return "class_folders"


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)

"""A folder of labelled images, read: which file shows what, and what the other files are.

The one reader for `new`, `workspace`, `fetch`, `prepare` and `validate`. Four layouts are known:

- a table speaks: records.csv, metadata.csv or metadata.jsonl at the top, or one in each of the
  folders of a published split;
- a folder a class;
- train, val and test folders, with a folder a class below each;
- a folder a class, with train, val and test folders below each.

The last three need no table; where one is there, it is believed before folders. Tables are read as
spreadsheets write them: with a byte order mark, as UTF-16, with ``;`` or tabs, quoted, with
carriage returns, with backslashes in paths. They are written elsewhere: with paths from another
disk, without suffixes, in another Unicode form than the file system's. One way of reading is chosen
for a whole table, the one by which most of its rows are found, so that no single row is bent until
some file fits.

References:
    Column names of `metadata.csv`: Hugging Face datasets, "Create an image dataset", ImageFolder.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pipelines.card import DatasetCard
from pipelines.data.tree import TABLES, File, Split, files_of, split_named
from pipelines.errors import DataError

#: Files and folders that an error names.
_NAMED = 3
LayoutKind = Literal["table", "class_folders", "split_folders", "splits_in_classes"]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One image as the folder itself describes it.

    Attributes:
        path: POSIX path relative to the folder.
        name: of its class, as the folder or the table has it, in Unicode's form NFC.
        group: that the table states; empty where it states none, as is the source.
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
        except _NoLabelsError:
            # Of our own records.csv it is a fault; a metadata.csv may be about something else.
            if any(table.name.casefold() == TABLES[0] for table in tables):
                raise
            if not (found := _by_folders(folder, files, card)).images:
                raise
            return found
    return _by_folders(folder, files, card)


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
        rows, states_groups = _read_table(folder / path)
        has_groups |= states_groups
        images += [
            replace(row, path=file, name=_nfc(row.name))
            for row, file in zip(rows, _find_files(rows, files, path.parent), strict=True)
            if row.name
        ]
    check_once([image.path for image in images], folder)
    # Folders of a split may speak where the table does not.
    by_folder = [split_named(PurePosixPath(image.path).parts[0]) for image in images]
    if all(by_folder) and not any(image.split for image in images):
        images = [
            replace(image, split=split) for image, split in zip(images, by_folder, strict=True)
        ]
    images.sort(key=lambda image: image.path)
    return Layout("table", tuple(images), tuple(files), has_groups, tables[0].name)


def listed_files(folder: Path) -> list[Labelled]:
    """The rows of a folder's table, for kinds whose truth is no label; empty without a table.

    A row whose file is not there is among them, too.

    Raises:
        DataError: as `read_folder`, of its table.
    """
    files = files_of(folder)
    found: list[Labelled] = []
    for path in _tables(files):
        try:
            rows, _ = _read_table(folder / path, needs_label=False)
        except _NoLabelsError:
            # As in `read_folder`: another table may be about something else.
            if path.name.casefold() == TABLES[0]:
                raise
            continue
        places = _find_files(rows, files, path.parent)
        found += [replace(row, path=file) for row, file in zip(rows, places, strict=True)]
    check_once([row.path for row in found], folder)
    return sorted(found, key=lambda row: row.path)


def check_once(paths: Iterable[str], folder: Path) -> None:
    """Nothing, if no image of the folder is listed twice.

    Raises:
        DataError: names the first that are.
    """
    twice = sorted(path for path, n in Counter(paths).items() if n > 1)
    if twice:
        raise DataError(
            f"{folder}: {len(twice)} path(s) are listed more than once "
            f"({', '.join(map(repr, twice[:_NAMED]))}). Expected one row an image, with one label. "
            f"Mend the list."
        )


# -- tables ---------------------------------------------------------------------------------------
#: By what a column is for, the names that it goes by; the first that is there counts.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "file_name", "filename", "file", "image", "image_path", "image_id"),
    "label": ("label", "class", "class_name", "category"),
    "group": ("group", "group_id", "patient", "patient_id", "subject", "subject_id"),
    "source": ("source",),
    "split": ("split", "subset", "partition"),
}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_DELIMITERS = (",", ";", "\t")
#: What Excel puts above the header where a list separator is to be told.
_SEP_LINE = re.compile(r"sep=(.)\r?\n")
_FLAGS = frozenset({"0", "1", "0.0", "1.0", "true", "false"})
_ONE_LABEL = (
    "Expected one label for each image, in one column; several labels for an image are not "
    "supported"
)


class _NoLabelsError(DataError):
    """A table that does not say which file shows what."""


def _read_table(file: Path, *, needs_label: bool = True) -> tuple[list[Labelled], bool]:
    """The rows of a table with path and name as written, and whether it states groups.

    Raises:
        _NoLabelsError: if a column for paths or for labels is missing.
        DataError: if it is not text that can be read, or a row states several labels or a split
            that is none.
    """
    text = _text(file)
    if file.suffix.lower() == ".jsonl":
        header, cells = _json_rows(text, file)
    else:
        header, cells = _csv_rows(text, file)
    cells = [(line, row) for line, row in cells if any(value.strip() for value in row.values())]
    column = _columns(header, cells, file, {"path", "label"} if needs_label else {"path"})
    rows = [_row(f"{file}:{line}", row, column) for line, row in cells]
    if needs_label:
        _check_one_label(rows)
    return rows, "group" in column


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as err:
        raise DataError(f"{file}: cannot be read ({err.strerror}). Mend the permission.") from err
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if encoding is None:
        # UTF-16 without a mark: every second byte of a header in Latin letters is 0.
        zeros = (data[:40:2].count(0), data[1:40:2].count(0))
        encoding = "utf-8" if max(zeros) < 5 else ("utf-16-be" if zeros[0] > 5 else "utf-16-le")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as err:
        raise DataError(
            f"{file}: expected CSV text in UTF-8 ({err.reason} at byte {err.start}). Save it again "
            f"as UTF-8; Excel calls that `CSV UTF-8 (comma delimited)`."
        ) from err


_Cells = list[tuple[int, dict[str, str]]]


def _csv_rows(text: str, file: Path) -> tuple[list[str], _Cells]:
    n_before, delimiter = 0, ""
    if match := _SEP_LINE.match(text):
        text, delimiter, n_before = text[match.end() :], match[1], 1
    head = text.partition("\n")[0]
    delimiter = delimiter or max(_DELIMITERS, key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restkey="")
    try:
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        cells = [
            (n_before + reader.line_num, {name: cell or "" for name, cell in row.items() if name})
            for row in reader
        ]
    except csv.Error as err:
        raise DataError(f"{file}: expected CSV text in UTF-8 ({err}). Save it again.") from err
    return header, cells


def _json_rows(text: str, file: Path) -> tuple[list[str], _Cells]:
    header: dict[str, None] = {}
    cells: _Cells = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise DataError(f"{file}:{number}: expected a JSON object a line ({err}).") from err
        if not isinstance(row, dict):
            raise DataError(f"{file}:{number}: expected a JSON object a line (got {line[:40]!r}).")
        header.update(dict.fromkeys(row))
        cells.append((number, {name: _cell(value) for name, value in row.items()}))
    return list(header), cells


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _columns(header: Sequence[str], cells: _Cells, file: Path, needed: set[str]) -> dict[str, str]:
    """By what it is for, the name of a column."""
    by_name = {name.casefold(): name for name in reversed(header)}
    column = {}
    for purpose, names in _COLUMNS.items():
        found = next((by_name[name] for name in names if name in by_name), None)
        if found is not None:
            column[purpose] = found
    absent = sorted(needed - set(column))
    flags = _flags(header, cells, set(column.values()))
    if "label" in absent and len(flags) > 1:
        raise DataError(
            f"{file}: the columns {', '.join(flags[:3])}{', …' if len(flags) > 3 else ''} hold 0 "
            f"and 1, a column a class. {_ONE_LABEL}. Put the class's name in a column `label`."
        )
    if absent:
        raise _NoLabelsError(
            f"{file}: expected the columns path, label[, group, source, split], without "
            f"{', '.join(absent)} it cannot be used (got {', '.join(header[:8]) or 'none'}). "
            f"Also understood: {' or '.join(_COLUMNS['path'][1:])} for the path, "
            f"{' or '.join(_COLUMNS['label'][1:])} for the label."
        )
    return column


def _flags(header: Iterable[str], cells: _Cells, known: set[str]) -> list[str]:
    if not cells:
        return []
    return [
        name
        for name in header
        if name
        and name not in known
        and all(row.get(name, "").strip().casefold() in _FLAGS for _, row in cells)
    ]


def _row(where: str, cells: Mapping[str, str], column: Mapping[str, str]) -> Labelled:
    def cell(purpose: str) -> str:
        return cells.get(column.get(purpose, ""), "").strip()

    stated = cell("split")
    split = split_named(stated)
    if stated and split is None:
        raise DataError(
            f"{where}: column {column['split']}: expected train, val or test (got {stated!r})."
        )
    # Not stripped: a file name may end with a blank.
    path = cells.get(column["path"], "")
    return Labelled(path, cell("label"), cell("group"), cell("source"), split, where, cells)


def _check_one_label(rows: Sequence[Labelled]) -> None:
    labels = {row.name for row in rows}
    for row in rows:
        if _is_list(row.name, labels):
            raise DataError(
                f"{row.where}: {row.name!r} are several labels. {_ONE_LABEL}. Leave out such "
                f"images, or give a combination a class of its own, with a name of its own."
            )


def _is_list(label: str, labels: set[str]) -> bool:
    """Whether a cell is a list: ``a|b``, ``[…]``, or other rows' labels with ``,`` or ``;``."""
    if "|" in label or (label.startswith("[") and label.endswith("]")):
        return True
    for delimiter in (",", ";"):
        parts = {part.strip() for part in label.split(delimiter)}
        if len(parts) > 1 and parts <= labels:
            return True
    return False


# -- the files of rows ----------------------------------------------------------------------------
#: From the parts of a path to the files that it may mean.
_Lookup = Callable[[tuple[str, ...]], list[str]]


def _find_files(rows: Sequence[Labelled], files: Iterable[File], base: PurePosixPath) -> list[str]:
    """The path of each row's file, relative to the source; of a missing one, as the row has it.

    Tried in this order: the path as written, below ``base``, the table's folder; without leading
    folders that all rows share (``/home/me/set/…``, ``images/…``); anywhere below ``base``. Each
    time letter case and Unicode form do not matter where nothing else fits, and a suffix may be
    left out.

    Raises:
        DataError: if a path leads out of the source, or means several files.
    """
    here = [
        file for file in files if file.kind in {"image", "other"} and file.path.is_relative_to(base)
    ]
    wanted = [_parts(row) for row in rows]
    shared = _n_shared(wanted)
    whole, anywhere = _index(here, base, tails=False), _index(here, base, tails=True)
    readings: list[tuple[int, _Lookup]] = [(drop, whole) for drop in range(shared + 1)]
    # Of a relative path no folder is left out and another one put in its place.
    is_foreign = any(_is_absolute(row.path) for row in rows)
    readings += [(drop, anywhere) for drop in range(shared * is_foreign + 1)]
    found = max(
        ([lookup(parts[drop:]) for parts in wanted] for drop, lookup in readings),
        key=lambda candidates: (
            sum(len(each) == 1 for each in candidates),
            sum(len(each) > 0 for each in candidates),
        ),
    )
    return [
        _one(row, parts, candidates, base)
        for row, parts, candidates in zip(rows, wanted, found, strict=True)
    ]


def _parts(row: Labelled) -> tuple[str, ...]:
    """The parts of a path, whichever way its slashes lean."""
    parts = tuple(part for part in row.path.replace("\\", "/").split("/") if part not in {"", "."})
    if not parts or ".." in parts or "\0" in row.path:
        raise _outside(row)
    return parts


def _one(row: Labelled, parts: tuple[str, ...], candidates: list[str], base: PurePosixPath) -> str:
    if len(candidates) > 1:
        named = ", ".join(map(repr, candidates[:_NAMED]))
        raise DataError(
            f"{row.where}: {row.path!r} may be each of {len(candidates)} files ({named}). "
            f"Expected a path that means one. Write it with its folders and suffix."
        )
    if candidates:
        return candidates[0]
    if _is_absolute(row.path):
        raise _outside(row)
    return str(PurePosixPath(base, *parts))


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "\\")) or ":" in path.replace("\\", "/").partition("/")[0]


def _outside(row: Labelled) -> DataError:
    return DataError(f"{row.where}: the path {row.path!r} must be relative and stay inside raw/.")


def _n_shared(wanted: Sequence[tuple[str, ...]]) -> int:
    """How many leading folders all paths have in common."""
    if not wanted:
        return 0
    first, last = min(wanted), max(wanted)
    most = min(len(first), len(last)) - 1
    return next((n for n in range(most) if first[n] != last[n]), most)


def _index(files: Sequence[File], base: PurePosixPath, *, tails: bool) -> _Lookup:
    """A look-up of files by path: letter by letter, else by form, else without the suffix."""
    exact, alike, stems = (defaultdict[tuple[str, ...], list[str]](list) for _ in range(3))
    for file in files:
        parts = file.path.relative_to(base).parts
        for start in range(len(parts) if tails else 1):
            tail, path = parts[start:], str(file.path)
            exact[tail].append(path)
            alike[_plain(tail)].append(path)
            if file.kind == "image":
                stems[_plain((*tail[:-1], PurePosixPath(tail[-1]).stem))].append(path)

    def look(parts: tuple[str, ...]) -> list[str]:
        return exact.get(parts) or alike.get(_plain(parts)) or stems.get(_plain(parts)) or []

    return look


def _plain(parts: Iterable[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)

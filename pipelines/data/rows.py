"""Which files the rows of a table mean.

Tables are written elsewhere: with paths from another disk, without suffixes, in another Unicode
form than the file system's. One way of reading is chosen for a whole table, the one by which most
of its rows are found, so that no single row is bent until some file fits.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from pipelines.data.tables import Row
from pipelines.data.tree import File
from pipelines.errors import DataError

#: From the parts of a path to the files that it may mean.
_Lookup = Callable[[tuple[str, ...]], list[str]]
_NAMED = 3


def find_files(
    rows: Sequence[Row], files: Iterable[File], base: PurePosixPath, where: Path
) -> list[str]:
    """The path of each row's file, relative to the source; of a missing one, as the row has it.

    Tried in this order: the path as written, below the table's folder; without leading folders
    that all rows share (``/home/me/set/…``, ``images/…``); anywhere below the table's folder.
    Each time letter case and Unicode form do not matter where nothing else fits, and a suffix may
    be left out.

    Args:
        rows: of the table.
        files: of the source, those that are passed over too.
        base: folder of the table, relative to the source.
        where: the table, for messages.

    Raises:
        DataError: if a path leads out of the source, or means several files.
    """
    here = [
        file for file in files if file.kind in {"image", "other"} and file.path.is_relative_to(base)
    ]
    wanted = [_parts(row, where) for row in rows]
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
        _one(row, parts, candidates, base, where)
        for row, parts, candidates in zip(rows, wanted, found, strict=True)
    ]


def _parts(row: Row, where: Path) -> tuple[str, ...]:
    """The parts of a path, whichever way its slashes lean."""
    parts = tuple(part for part in row.path.replace("\\", "/").split("/") if part not in {"", "."})
    if not parts or ".." in parts or "\0" in row.path:
        raise _outside(row, where)
    return parts


def _one(
    row: Row,
    parts: tuple[str, ...],
    candidates: list[str],
    base: PurePosixPath,
    where: Path,
) -> str:
    if len(candidates) > 1:
        named = ", ".join(map(repr, candidates[:_NAMED]))
        raise DataError(
            f"{where}:{row.line}: {row.path!r} may be each of {len(candidates)} files ({named}). "
            f"Expected a path that means one. Write it with its folders and suffix."
        )
    if candidates:
        return candidates[0]
    if _is_absolute(row.path):
        raise _outside(row, where)
    return str(PurePosixPath(base, *parts))


def _is_absolute(path: str) -> bool:
    return path.startswith(("/", "\\")) or ":" in path.replace("\\", "/").partition("/")[0]


def _outside(row: Row, where: Path) -> DataError:
    return DataError(
        f"{where}:{row.line}: the path {row.path!r} must be relative and stay inside raw/."
    )


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

"""Every file below a folder, each with the one kind that it is counted as.

Links are followed, since a folder of links is a usual data set; a link to nothing, and one that
leads back into a folder around it, are told. Nothing is decoded. Called by
`pipelines.data.layout` and by whoever accounts for the files of a folder.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pipelines.data.formats import holds_image
from pipelines.data.names import IMAGE_SUFFIXES, SOURCE_FILE, is_table, passed_over, suffix_of
from pipelines.errors import DataError

#: ``image`` may be one; of the others none is looked at.
Kind = Literal["image", "table", "other", "hidden", "system", "dangling", "loop", "special"]

#: More files than any public set of images has: links in a circle, or a whole disk.
_MAX_FILES = 2_000_000


@dataclass(frozen=True, slots=True)
class File:
    """One file.

    Attributes:
        path: POSIX path relative to the folder.
        kind: what it is counted as.
    """

    path: PurePosixPath
    kind: Kind


def files_of(folder: Path) -> list[File]:
    """The files of a folder and of all folders below it, sorted by path.

    Args:
        folder: to look through. The `SOURCE_FILE` of `fetch` at its top is left out.

    Raises:
        DataError: if a folder cannot be read, or there are more files than any set has.
    """
    found: list[File] = []
    for path, kind in _walk(folder):
        if path.parts == (SOURCE_FILE,):
            continue
        found.append(File(path, kind))
        if len(found) > _MAX_FILES:
            raise DataError(
                f"{folder}: holds more than {_MAX_FILES:,} files. Name the folder of the images."
            )
    return sorted(found, key=lambda file: str(file.path))


def _walk(top: Path) -> Iterator[tuple[PurePosixPath, Kind]]:
    #: Folders to look into, each with the real paths of itself and of those around it.
    waiting: list[tuple[PurePosixPath, tuple[str, ...]]]
    waiting = [(PurePosixPath(), (os.path.realpath(top),))]
    while waiting:
        here, around = waiting.pop()
        for entry in _entries(top / here):
            path = here / entry.name
            passed = passed_over(path)
            if _is_folder(entry, follow=passed is None):
                real = f"{around[-1]}{os.sep}{entry.name}"
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                if real in around:
                    yield path, "loop"
                else:
                    waiting.append((path, (*around, real)))
            else:
                yield path, kind_of(Path(entry.path), path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as err:
        raise DataError(
            f"{str(folder)!r}: the folder cannot be read ({err.strerror}). Mend the permission or "
            f"take it away, then run the same command again."
        ) from err


def _is_folder(entry: os.DirEntry[str], *, follow: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:
        # A link to itself.
        return False


def kind_of(file: Path, path: PurePosixPath) -> Kind:
    """What a file, or a link, is counted as.

    Args:
        file: where it lies.
        path: relative to the source that it is part of: all of its names count.
    """
    passed = passed_over(path)
    if passed is not None:
        return passed
    suffix = suffix_of(path)
    if suffix in IMAGE_SUFFIXES:
        # Also a link to nothing: it is missed as an image of its class, with its reason.
        return "image"
    try:
        mode = file.stat().st_mode
    except OSError:
        return "dangling"
    if not stat.S_ISREG(mode):
        return "special"
    if is_table(path):
        return "table"
    return "image" if not suffix and holds_image(file) else "other"

"""Images from a folder of this machine: a folder a class, or a table.

A folder of links is a usual data set: links to files and folders are followed, wherever they lead,
and what is copied is content. A link that leads nowhere, or back to a folder that it lies in, is
passed over and counted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipelines.card import FolderSource
from pipelines.data.tree import passed_over
from pipelines.errors import SourceError
from pipelines.progress import track
from pipelines.sources.download import is_address, read_chunks, reason
from pipelines.sources.intake import Facts, Intake

#: A folder has no `max_bytes` in params.yaml; this stops a copy of somebody's whole disk.
MAX_BYTES = 100_000_000_000

_NEXT_STEP = "Mend the permission or take the file away, then run the same command again"


def fetch_folder(source: FolderSource, intake: Intake, root: Path) -> Facts:
    """Copy the images of a folder.

    Args:
        intake: takes the files.
        root: project root, for a relative path.

    Returns:
        The folder's last name.

    Raises:
        SourceError: if it is not a folder, holds too many files, or one of its files or folders
            cannot be read.
    """
    if is_address(source.path):
        raise SourceError(
            f"{intake.what}: `source.path` is an address. Name a folder of a store as `kind: "
            f"store`, an archive as `kind: archive`, each with `location`."
        )
    top = (root / source.path).resolve()
    if not top.is_dir():
        raise SourceError(
            f"{intake.what}: there is no folder {source.path!r}. Mend `source.path` in params.yaml."
        )
    wanted = [(path, file) for path, file in _walk(top, intake) if intake.wants(path)]
    for path, file in track(wanted, f"{intake.what}: copying", len(wanted)):
        intake.add(path, _read(file))
    return {"folder": top.name or "folder"}


def _walk(top: Path, intake: Intake) -> Iterator[tuple[PurePosixPath, Path]]:
    """Files below a folder, in sorted order, each with the place of its bytes.

    Links, pipes and what lies in folders that are never looked into are counted.
    """
    # A folder's name in the source, its place, and the places of the folders that lead to it.
    waiting = [(PurePosixPath(), top, frozenset({top}))]
    n_seen = 0
    while waiting:
        here, place, way = waiting.pop()
        intake.check_depth(here)
        folders = []
        for entry in _entries(place):
            n_seen += 1
            if n_seen > intake.max_files:
                raise intake.too_many()
            path, real = here / entry.name, Path(entry.path)
            if entry.is_symlink():
                try:
                    real = real.resolve(strict=True)
                except (FileNotFoundError, NotADirectoryError, RuntimeError):
                    # RuntimeError: links in a circle, which lead nowhere too.
                    intake.skipped["dangling link"] += 1
                    continue
                except OSError as err:
                    raise SourceError(
                        f"{entry.path!r}: the link cannot be followed ({reason(err)}). "
                        f"{_NEXT_STEP}."
                    ) from err
            if real.is_dir():
                if kind := passed_over(path):
                    intake.skipped[kind] += sum(len(files) for _, _, files in os.walk(real))
                elif real in way:
                    intake.skipped["link loop"] += 1
                else:
                    folders.append((path, real, way | {real}))
            elif real.is_file():
                yield path, real
            else:
                intake.skipped["special"] += 1
        waiting.extend(reversed(folders))


def _entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as err:
        raise SourceError(
            f"{str(place)!r}: the folder cannot be read ({reason(err)}). {_NEXT_STEP}."
        ) from err


def _read(path: Path) -> Iterator[bytes]:
    fault = f"{str(path)!r}: the file cannot be read. {_NEXT_STEP}"
    try:
        # It may have become a link or a pipe since it was listed: neither is opened.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise SourceError(f"{fault} ({reason(err)}).") from err
    with open(handle, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceError(f"{fault} (not a regular file).")
        yield from read_chunks(stream, fault, (OSError,))

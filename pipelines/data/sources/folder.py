"""Images from a folder of this machine: a folder a class, or a records.csv.

Links are never followed: a loop does no harm, and nothing from outside the folder comes in.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipelines.config_sources import FolderSource
from pipelines.data.sources.intake import Facts, Intake, read_chunks, reason
from pipelines.errors import SourceError
from pipelines.progress import track

#: A folder has no `max_bytes` in params.yaml; this stops a copy of somebody's whole disk.
MAX_BYTES = 100_000_000_000

_NEXT_STEP = "Mend the permission or take the file away, then run the same command again"


def fetch_folder(source: FolderSource, intake: Intake, root: Path) -> Facts:
    """Copy the images of a folder.

    Args:
        source: names it.
        intake: takes the files.
        root: project root, for a relative path.

    Returns:
        The folder's last name.

    Raises:
        SourceError: if it is not a folder, or one of its files or folders cannot be read.
    """
    top = (root / source.path).resolve()
    if not top.is_dir():
        raise SourceError(
            f"{intake.what}: there is no folder {source.path!r}. Mend `source.path` in params.yaml."
        )
    wanted = [path for path in _walk(top, intake) if intake.wants(path)]
    for path in track(wanted, f"{intake.what}: copying", len(wanted)):
        intake.add(path, _read(top / path))
    return {"folder": top.name or "folder"}


def _walk(top: Path, intake: Intake) -> Iterator[PurePosixPath]:
    """Regular files below a folder, in sorted order; counts links and special files."""
    waiting = [PurePosixPath()]
    while waiting:
        here = waiting.pop()
        intake.check_depth(here)
        try:
            with os.scandir(top / here) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as err:
            raise SourceError(
                f"{str(top / here)!r}: the folder cannot be read ({reason(err)}). {_NEXT_STEP}."
            ) from err
        folders = []
        for entry in entries:
            if entry.is_symlink():
                intake.skipped["link"] += 1
            elif entry.is_dir(follow_symlinks=False):
                if entry.name.startswith("."):
                    intake.skipped["hidden"] += 1
                else:
                    folders.append(here / entry.name)
            elif entry.is_file(follow_symlinks=False):
                yield here / entry.name
            else:
                intake.skipped["special"] += 1
        waiting.extend(reversed(folders))


def _read(path: Path) -> Iterator[bytes]:
    fault = f"{str(path)!r}: the file cannot be read. {_NEXT_STEP}"
    try:
        # The file may have become a link or a pipe since it was listed: neither is opened.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        raise SourceError(f"{fault} ({reason(err)}).") from err
    with open(handle, "rb", buffering=0) as stream:  # noqa: PTH123 - a descriptor, not a path
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceError(f"{fault} (not a regular file).")
        yield from read_chunks(stream, fault, (OSError,))

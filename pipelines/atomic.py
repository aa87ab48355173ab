"""Files and folders that are whole or not there.

Everything that the pipeline writes goes through here: first under a temporary name beside the
target, then renamed. A killed process leaves the old content, and at most a `.tmp-…` name that the
next run removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import StorageError

_PREFIX = ".tmp-"

#: System errors that say "the disk", not "a bug".
STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into one clear line.

    Args:
        path: what is being written.

    Raises:
        StorageError: for the errors in `STORAGE_ERRNOS`; others pass.
    """
    try:
        yield
    except OSError as err:
        if err.errno in STORAGE_ERRNOS:
            raise StorageError(
                f"{path}: cannot be written ({err.strerror}). Nothing was changed; free space or "
                f"mend the permission, then run the same command again."
            ) from err
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file in one step, making its folder if needed.

    Args:
        path: the file.
        data: its whole new content.

    Raises:
        StorageError: if the disk is full or forbids it; the old content stays.
    """
    temporary = path.with_name(f"{_PREFIX}{os.getpid()}-{path.name}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step, in UTF-8 with the line ends as given.

    Args:
        path: the file.
        text: its whole new content.

    Raises:
        StorageError: as `write_bytes`.
    """
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A fresh folder to fill, that takes the place of ``path`` when the block ends well.

    Args:
        path: the folder; what it holds is replaced as a whole, or stays if the block raises.

    Yields:
        An empty folder beside ``path``.

    Raises:
        StorageError: if the disk is full or forbids it.
    """
    temporary = path.with_name(f"{_PREFIX}{path.name}")
    retired = path.with_name(f"{_PREFIX}old-{path.name}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in (temporary, retired):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                path.rename(retired)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if retired.exists() and not path.exists():
                retired.rename(path)
            shutil.rmtree(retired, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes, read in bounded memory.

    Args:
        path: the file.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

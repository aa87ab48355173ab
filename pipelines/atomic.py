"""Files and folders that are whole or not there.

Everything that the pipeline writes goes through here: first under a temporary name beside the
target, then renamed. A killed process leaves the old content, and at most a `.tmp-…` name that the
next writing of the same file or folder removes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import StorageError

_PREFIX = ".tmp-"

#: System errors that say "the disk", not "a bug".
STORAGE_ERRNOS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}
)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or forbidden disk into one clear line.

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

    Raises:
        StorageError: if the disk is full or forbids it; the old content stays.
    """
    # One name, whichever process writes: what a killed one left is written over.
    temporary = path.with_name(f"{_PREFIX}{path.name}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _sole_writer(temporary) as stream:
            try:
                stream.truncate(0)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise


@contextmanager
def _sole_writer(temporary: Path) -> Iterator[BinaryIO]:
    """A temporary file that no other process writes to meanwhile."""
    while True:
        with temporary.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            # While this process waited, the other one has renamed or removed what was opened.
            if _is_at(temporary, stream.fileno()):
                yield stream
                return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step, in UTF-8 with the line ends as given.

    Raises:
        StorageError: as `write_bytes`.
    """
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A path to write to, for a library that takes no bytes; it becomes ``path`` at the end.

    One process at a time may write the same file.

    Raises:
        StorageError: if the disk is full or forbids it; the old content stays.
    """
    temporary = path.with_name(f"{_PREFIX}{path.name}")
    with storage_errors(path):
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


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
        if retired.exists() and not path.exists():
            # Killed between the two renames below.
            retired.rename(path)
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
    """Hash of a file's bytes, read in bounded memory."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

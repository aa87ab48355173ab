"""One process a task: two `fieldlens train` of one task would overwrite each other's checkpoint.

The lock is the kernel's (flock), so a killed process leaves none behind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.atomic import storage_errors
from pipelines.errors import BusyError


@contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file for the length of a block.

    Args:
        what: what is being done, for the other process's message, e.g. ``train fish_species``.

    Raises:
        BusyError: if another process holds it.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            holder = " ".join(stream.read().split()) or "another process"
            raise BusyError(
                f"{what}: {holder} works on this task (lock {path}). "
                f"Wait until it ends, or end it by its process id."
            ) from None
        stream.truncate(0)
        stream.write(f"process {os.getpid()} ({what})\n")
        stream.flush()
        yield

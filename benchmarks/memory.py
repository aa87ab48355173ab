"""Peak memory of a process and of all that it starts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass(slots=True)
class Peak:
    """The largest sum of resident memory so far.

    Pages that processes share count in each, so it is an upper bound.
    """

    n_bytes: int = 0


@contextmanager
def peak_memory(pid: int, interval_s: float = 0.5) -> Iterator[Peak]:
    """Watch a process tree while the block runs."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while True:
            peak.n_bytes = max(peak.n_bytes, tree_bytes(pid))
            if done.wait(interval_s):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; 0 if it is gone."""
    total = 0
    # Each may end between the listing and the reading.
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
    return total

"""Peak memory of a process and of all that it starts, sampled from /proc (Linux)."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Watches a process tree while the `with` block runs.

    Attributes:
        peak_bytes: largest sum of resident memory so far. Pages that processes share count in each,
            so it is an upper bound.
    """

    def __init__(self, pid: int, interval_s: float = 0.5) -> None:
        self.peak_bytes = 0
        self._pid, self._interval_s = pid, interval_s
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._watcher.join()

    def _watch(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_bytes(self._pid))
            if self._done.wait(self._interval_s):
                return


def tree_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants, in bytes; 0 if it is gone."""
    children: dict[int, list[int]] = defaultdict(list)
    resident: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may hold spaces and brackets itself.
            values = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue  # It ended between the listing and the reading.
        number = int(stat.parent.name)
        # Fields 4 (parent) and 24 (resident pages) of proc_pid_stat(5); the first here is field 3.
        children[int(values[1])].append(number)
        resident[number] = int(values[21]) * _PAGE_BYTES
    total, waiting = 0, [pid]
    while waiting:
        number = waiting.pop()
        total += resident.get(number, 0)
        waiting += children.get(number, [])
    return total

"""How fast models run against each other: in turn, in one process, on one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

#: Runs before counting: the first ones allocate and page in.
_N_WARM_UP = 5


def paired_ms(
    calls: Mapping[str, Callable[[], object]], n_runs: int = 30, n_in_a_row: int = 1
) -> dict[str, list[float]]:
    """Wall time of each call, taken in turn, so that the machine's moods hit all alike.

    Args:
        n_in_a_row: runs of one call before the next one's turn. With 1 each finds the processor's
            caches full of the others' data, as a single question does; with more it mostly finds
            its own, as a camera's frames do.

    Returns:
        By name, n_runs times in ms, in the order of the runs.
    """
    for call in calls.values():
        for _ in range(_N_WARM_UP):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(0, n_runs, n_in_a_row):
        for name, call in calls.items():
            for _ in range(min(n_in_a_row, n_runs - done)):
                start = time.perf_counter()
                call()
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def speedup(slow_ms: Sequence[float], fast_ms: Sequence[float]) -> float:
    """How many times as fast the second is: the median of the ratios of `paired_ms`."""
    return float(np.median(np.asarray(slow_ms) / np.asarray(fast_ms)))

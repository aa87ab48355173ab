"""How fast models run against each other: in turn, in one process, on one thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_LOG = logging.getLogger(__name__)

#: Runs before counting: the first ones allocate and page in.
_N_WARM_UP = 5
#: Of the times of a pass: what others do on the machine only ever makes a run longer.
_PERCENTILE = 20
#: Two passes that differ by more are no measurement.
STEADY = 0.10
#: Passes in search of two that agree.
_MOST_PASSES = 6


def paired_ms(
    calls: Mapping[str, Callable[[], object]],
    n_runs: int = 30,
    n_in_a_row: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Wall time of each call, taken in turn, so that the machine's moods hit all alike.

    Args:
        n_in_a_row: runs of one call before the next one's turn. With 1 each finds the processor's
            caches full of the others' data, as a single question does; with more it mostly finds
            its own, as a camera's frames do.
        clock: in seconds.

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
                start = clock()
                call()
                times[name].append((clock() - start) * 1000)
    return times


def speedup(slow_ms: Sequence[float], fast_ms: Sequence[float]) -> float:
    """How many times as fast the second is: the median of the ratios of `paired_ms`."""
    return float(np.median(np.asarray(slow_ms) / np.asarray(fast_ms)))


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a call takes beside the reference.

    Attributes:
        ms: 20th percentile, the mean of two passes.
        reference_ms: the same of the reference.
        ratio: of both, the mean of two passes.
        gap: between the two passes' ratios, as a share of the smaller.
        n_passes: that were run until two agreed.
        is_steady: whether two did.
    """

    ms: float
    reference_ms: float
    ratio: float
    gap: float
    n_passes: int
    is_steady: bool


def against_reference(
    calls: Mapping[str, Callable[[], object]],
    reference: Callable[[], object],
    n_runs: int = 30,
    clock: Callable[[], float] = time.thread_time,
) -> dict[str, Latency]:
    """Each call's latency beside a reference that is run in turn with all of them.

    A search that trusts one pass finds the clock's noise (its best networks were artefacts). So two
    successive passes must agree; until they do, passes are added, and where none do the last two
    are told as what they are. That does not see a machine that is busy all the time: there a run of
    4 ms waits for its turn in the middle, and one of 1 ms does not, so that ratios of wall times
    were ten times too small and agreed within 2 % (docs/experiments/board.md). So time counts only
    while the thread runs: on an idle machine both are the same.

    Args:
        calls: by name; each does its work in the thread that calls it.
        reference: what all are compared with.
        n_runs: of each call in a pass.
        clock: in seconds.
    """
    passes: list[dict[str, tuple[float, float]]] = []
    found: dict[str, Latency] = {}
    while len(passes) < _MOST_PASSES and len(found) < len(calls):
        times = paired_ms({**calls, "": reference}, n_runs, clock=clock)
        low = {name: float(np.percentile(each, _PERCENTILE)) for name, each in times.items()}
        passes.append({name: (low[name], low[""]) for name in calls})
        if len(passes) > 1:
            both = {name: _of_two(name, passes) for name in calls if name not in found}
            found |= {name: each for name, each in both.items() if each.is_steady}
    return {name: found.get(name) or _of_two(name, passes) for name in calls}


def is_as_fast(
    call: Callable[[], object],
    reference: Callable[[], object],
    least: float,
    clock: Callable[[], float] = time.thread_time,
) -> bool:
    """Whether a call is at least ``least`` times as fast as a reference (`against_reference`)."""
    found = against_reference({"call": call}, reference, clock=clock)["call"]
    _LOG.info("%.2f times as fast as the reference on one thread here", 1 / found.ratio)
    return 1 / found.ratio >= least


def _of_two(name: str, passes: Sequence[Mapping[str, tuple[float, float]]]) -> Latency:
    """Of the last two passes."""
    (ms, reference_ms), (again_ms, again_reference_ms) = passes[-2][name], passes[-1][name]
    ratios = ms / reference_ms, again_ms / again_reference_ms
    gap = max(ratios) / min(ratios) - 1
    return Latency(
        ms=(ms + again_ms) / 2,
        reference_ms=(reference_ms + again_reference_ms) / 2,
        ratio=sum(ratios) / 2,
        gap=gap,
        n_passes=len(passes),
        is_steady=gap <= STEADY,
    )

"""Work done by a few threads, in order: how many is a fact of the machine, not of a result."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipelines.errors import ConfigError

A = TypeVar("A")
B = TypeVar("B")


def n_workers() -> int:
    """Threads to use: as ``FIELDLENS_WORKERS`` says, else one a processor core.

    Of several processes on this machine, as torchrun counts them, each has its part of the cores.

    Raises:
        ConfigError: if it is not a whole number from 1.
    """
    environment = os.environ.get("FIELDLENS_WORKERS")
    if not environment:
        n_here = os.environ.get("LOCAL_WORLD_SIZE", "")
        return max((os.cpu_count() or 1) // max(int(n_here) if n_here.isdecimal() else 1, 1), 1)
    if not environment.isdecimal() or int(environment) < 1:
        raise ConfigError(
            f"FIELDLENS_WORKERS: expected a whole number from 1 (got {environment!r}). "
            f"Unset it to use every processor core."
        )
    return int(environment)


def ordered_map(work: Callable[[A], B], items: Iterable[A], *, window: int) -> Iterator[B]:
    """Results in the order of the items, computed by a few threads ahead of their use.

    Args:
        work: releases the interpreter lock for most of its time, as decoding does.
        items: what to work on.
        window: most results that wait or are in work at one time.
    """
    pending: collections.deque[Future[B]] = collections.deque()
    with ThreadPoolExecutor(n_workers()) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

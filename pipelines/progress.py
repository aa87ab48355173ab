"""Progress bars on a terminal, and a line now and then in a log file.

Everything goes to stderr, so that stdout stays clean for `--json`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
#: Seconds between two lines where there is no terminal.
_LOG_INTERVAL_S = 15.0


def track(
    items: Iterable[T], what: str, total: int, done: Callable[[], int] | None = None
) -> Iterator[T]:
    """The items, with a bar that shows the share done and the time left.

    Args:
        what: a few words, e.g. ``fish_species: decoding``.
        total: how many items there are, or where ``done`` ends.
        done: how far it is after an item, where items do not count alike, e.g. in MiB.
    """
    # What `pip install .` brings for serving has no rich.
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import Progress, TimeRemainingColumn

        columns = Progress.get_default_columns()[:-1]
        left = TimeRemainingColumn(elapsed_when_finished=True)
        with Progress(*columns, left, console=Console(stderr=True)) as bar:
            row = bar.add_task(what, total=total)
            for number, item in enumerate(items, start=1):
                yield item
                bar.update(row, completed=done() if done else number)
        return
    start = last = time.monotonic()
    for number, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _LOG_INTERVAL_S:
            last = now
            n_done = done() if done else number
            left_s = (now - start) / max(n_done, 1) * max(total - n_done, 0)
            _LOG.info("%s: %d of %d, about %.0f s left", what, n_done, total, left_s)

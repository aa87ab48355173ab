"""Progress bars on a terminal, and a line now and then in a log file.

Everything goes to stderr, so that stdout stays clean for `--json`.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_LOG = logging.getLogger(__name__)
#: Seconds between two lines where there is no terminal.
_LOG_INTERVAL_S = 15.0


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """The items, with a bar that shows the share done and the time left.

    Args:
        items: what to go through.
        what: a few words, e.g. ``fish_species: decoding``.
        total: how many items there are.
    """
    # What `pip install .` brings for serving has no rich.
    if sys.stderr.isatty() and importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import track as rich_track

        yield from rich_track(items, what, total=total, console=Console(stderr=True))
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _LOG_INTERVAL_S:
            last = now
            left_s = (now - start) / done * max(total - done, 0)
            _LOG.info("%s: %d of %d, about %.0f s left", what, done, total, left_s)

"""Many remote files side by side; what has arrived stays in the cache when another one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from pipelines.data.sources.intake import Intake, read_chunks
from pipelines.errors import SourceError
from pipelines.progress import track

#: Few, so that a publisher's server is not pressed.
_WORKERS = 4
#: After so many failures the list, the server or the line is broken, not a file.
_MAX_FAILURES = 25

Item = TypeVar("Item")


def bring_all(
    items: Sequence[Item], bring: Callable[[Item], Path], intake: Intake, next_step: str
) -> list[Path]:
    """Where each item lies in the cache, in their order.

    Args:
        items: what to bring.
        bring: brings one into the cache, unless it is there; called in several threads.
        intake: bounds the bytes of all.
        next_step: for the message, e.g. ``mend the list``.

    Raises:
        SourceError: if any cannot be brought, or all are too large; names the first three.
    """
    failures: list[str] = []
    pool = ThreadPoolExecutor(_WORKERS)
    places: dict[Future[Path], int] = {}
    try:
        places = {pool.submit(bring, item): index for index, item in enumerate(items)}
        n_bytes = 0
        done: Iterable[Future[Path]] = as_completed(places)
        for future in track(done, f"{intake.what}: fetching", len(places)):
            try:
                n_bytes += future.result().stat().st_size
            except SourceError as err:
                failures.append(str(err))
                if len(failures) >= _MAX_FAILURES:
                    break
                continue
            intake.check_room(n_bytes)
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        rest = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        stopped = " The rest was not tried." if len(failures) >= _MAX_FAILURES else ""
        raise SourceError(
            f"{intake.what}: {len(failures)} of {len(items)} images cannot be fetched: "
            f"{' | '.join(sorted(failures)[:3])}{rest}.{stopped} What has arrived is kept: "
            f"{next_step}, or run the same command again."
        )
    return [future.result() for future in sorted(places, key=places.__getitem__)]


def read_cached(path: Path) -> Iterator[bytes]:
    """The bytes of a file that has arrived.

    Args:
        path: in the cache.

    Raises:
        SourceError: if it cannot be read.
    """
    with path.open("rb") as stream:
        yield from read_chunks(stream, f"{path.name}: cannot be read from the cache", (OSError,))

"""Look at every raw image once: decode, hash, fingerprint, over several processes.

Only small tuples come back from a worker and only a window of chunks is in flight, so memory does
not grow with the images. A bad file becomes a `Refused`; it never stops the others. Called by
`prepare`.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.data.deep import UnscaledError
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, fingerprint
from pipelines.data.images import glance, read_file
from pipelines.data.reading import AS_IT_COMES, Reading
from pipelines.errors import CorruptImageError, DataError

#: Images that a worker takes at a time: enough to drown the cost of handing them over.
_CHUNK = 16
#: Chunks in flight for each worker: one at work, one waiting, one on its way.
_WINDOW = 3
#: Below both, starting processes (about half a second of a core) costs more than they save.
_MIN_PARALLEL_IMAGES = 1000
_MIN_PARALLEL_BYTES = 16_000_000

RefusalKind = Literal["missing", "unreadable", "too_small", "unscaled"]


class Seen(NamedTuple):
    """One image that may enter."""

    path: str
    #: Of the file's bytes, hexadecimal.
    sha256: str
    #: Pillow's name of the decoder.
    format: str
    width_px: int
    height_px: int
    is_exif_rotated: bool
    fingerprint: Fingerprint
    #: Share of the pixels outside the data set's range.
    outside: float = 0.0


class Refused(NamedTuple):
    """One file that may not enter."""

    path: str
    kind: RefusalKind
    #: One line, without the path.
    reason: str
    #: Least and greatest stored value, of a deep picture for which no range is stated.
    extent: tuple[float, float] | None = None


def look(
    raw_dir: Path, path: str, min_side_px: int, reading: Reading = AS_IT_COMES
) -> Seen | Refused:
    """What one file is.

    Args:
        raw_dir: folder that ``path`` is relative to.
        path: POSIX path.
        min_side_px: images with a shorter side below this are refused.
        reading: of the data set.
    """
    file = raw_dir / path
    try:
        data = read_file(file, path)
        seen = glance(data, side_px=GLANCE_PX, name=path, reading=reading)
    except UnscaledError as err:
        return Refused(path, "unscaled", err.reason, err.extent)
    except CorruptImageError as err:
        is_there = os.path.lexists(file)
        reason = err.reason if is_there else "the file is listed but is not there"
        return Refused(path, "unreadable" if is_there else "missing", reason)
    if min(seen.width_px, seen.height_px) < min_side_px:
        return Refused(
            path,
            "too_small",
            f"{seen.width_px} x {seen.height_px} px; the shorter side must have at least "
            f"{min_side_px} px",
        )
    return Seen(
        path,
        hashlib.sha256(data).hexdigest(),
        seen.format,
        seen.width_px,
        seen.height_px,
        seen.is_exif_rotated,
        fingerprint(seen.grey),
        seen.outside,
    )


def look_at_all(
    raw_dir: Path,
    paths: Sequence[str],
    *,
    min_side_px: int,
    n_workers: int,
    reading: Reading = AS_IT_COMES,
) -> Iterator[Seen | Refused]:
    """What each file is, in the order of ``paths``.

    Args:
        raw_dir: folder that the paths are relative to.
        paths: POSIX paths.
        min_side_px: as for `look`.
        n_workers: processes; with 1, or with little to do, this process does the work, as it does
            while they start.
        reading: of the data set.

    Raises:
        DataError: if the system ends a worker process.
    """
    if n_workers == 1 or not _is_much(raw_dir, paths):
        for path in paths:
            yield look(raw_dir, path, min_side_px, reading)
        return
    in_flight: deque[tuple[Sequence[str], Future[list[Seen | Refused]]]] = deque()
    with _pool(n_workers) as pool, ThreadPoolExecutor(1) as starter:
        chunk, n_seen = paths[:1], 0
        try:
            start = starter.submit(_start, pool)
            while n_seen < len(paths) and not start.done():
                yield look(raw_dir, paths[n_seen], min_side_px, reading)
                n_seen += 1
            start.result()
            chunks = deque(paths[i : i + _CHUNK] for i in range(n_seen, len(paths), _CHUNK))
            while chunks or in_flight:
                while chunks and len(in_flight) < _WINDOW * n_workers:
                    chunk = chunks.popleft()
                    work = pool.submit(_look_at, raw_dir, chunk, min_side_px, reading)
                    in_flight.append((chunk, work))
                chunk, future = in_flight.popleft()
                yield from future.result()
        except BrokenProcessPool as err:
            raise DataError(
                f"{raw_dir}: the system ended a process that was decoding images, at or after "
                f"{chunk[0]!r}. Expected it to finish; most often memory ran out. Set "
                f"FIELDLENS_WORKERS=1 and run the same command again."
            ) from err
        finally:
            # Reached early if the caller stops or an error is raised: what waits is not begun.
            for _, waiting in in_flight:
                waiting.cancel()


def _is_much(raw_dir: Path, paths: Sequence[str]) -> bool:
    if len(paths) >= _MIN_PARALLEL_IMAGES:
        return True
    n_bytes = 0
    for path in paths:
        # What is not there is refused later, with its reason.
        with contextlib.suppress(OSError):
            n_bytes += (raw_dir / path).stat().st_size
    return n_bytes >= _MIN_PARALLEL_BYTES


def _look_at(
    raw_dir: Path, paths: Sequence[str], min_side_px: int, reading: Reading
) -> list[Seen | Refused]:
    return [look(raw_dir, path, min_side_px, reading) for path in paths]


def _pool(n_workers: int) -> ProcessPoolExecutor:
    # Not fork: a progress bar and NumPy have threads, whose locks a forked child would inherit.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_live_with_parent)


def _start(pool: ProcessPoolExecutor) -> None:
    """Return once a worker answers: the pool starts them when it is first asked, and waits."""
    pool.submit(os.getpid).result()


def _live_with_parent() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)

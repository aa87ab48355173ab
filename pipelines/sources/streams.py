"""Bytes on their way from a source: read in chunks, with its faults told apart from our disk's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from pipelines.errors import SourceError
from pipelines.progress import track

#: Bytes moved at a time; also the unit of progress bars.
CHUNK_BYTES = 1 << 20


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


def read_chunks(
    stream: Readable, fault: str, errors: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """The bytes of a stream, so that a fault of the source is not taken for one of our disk.

    Args:
        stream: to read to its end.
        fault: what to say if reading fails, e.g. ``a.zip: 'b.jpg' is damaged``.
        errors: what its ``read`` may raise.

    Raises:
        SourceError: in place of any of ``errors``.
    """
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except errors as err:
            raise SourceError(f"{fault} ({reason(err)}).") from err
        if not chunk:
            return
        yield chunk


def reason(err: BaseException) -> str:
    """An exception's own words, on one line.

    Args:
        err: of the system or a library.
    """
    words = (err.strerror if isinstance(err, OSError) else None) or str(err)
    return " ".join(words.split()) or type(err).__name__


@contextmanager
def byte_bar(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar that counts MiB.

    Args:
        what: a few words, e.g. ``fish_species: unpacking``.
        n_bytes: how many there are.

    Yields:
        A function to call with the bytes done so far.
    """
    shown = 0
    bar = iter(track(itertools.count(), f"{what} (MiB)", -(-n_bytes // CHUNK_BYTES)))

    def advance_to(done: int) -> None:
        nonlocal shown
        for _ in range(shown, done // CHUNK_BYTES):
            next(bar)
        shown = max(shown, done // CHUNK_BYTES)

    yield advance_to


def peek(chunks: Iterator[bytes], n_bytes: int) -> tuple[Iterator[bytes], bytes]:
    """The same chunks, and the first bytes of them.

    Args:
        chunks: of a file.
        n_bytes: how many are wanted; fewer are given of a shorter file.
    """
    seen: list[bytes] = []
    for chunk in chunks:
        seen.append(chunk)
        if sum(map(len, seen)) >= n_bytes:
            break
    return itertools.chain(seen, chunks), b"".join(seen)[:n_bytes]

"""Look at every raw image once: decode, hash, fingerprint, by a few threads.

Decoding and hashing release the interpreter lock, so threads keep every core at work on
photographs. A pool of processes hangs for ever if the system ends a worker while it writes.
Only small tuples are kept and only a window of files is in flight, so memory does not grow with the
images. A bad file becomes a `Refused`; it never stops the others. Called by `prepare` and
`validate`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.data.deep import UnscaledError
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, fingerprint
from pipelines.data.images import glance, read_file
from pipelines.data.reading import AS_IT_COMES, Reading
from pipelines.data.workers import ordered_map
from pipelines.errors import CorruptImageError

#: Files in flight: their bytes and half-decoded pictures are what this costs in memory.
_WINDOW = 32

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
    raw_dir: Path, paths: Sequence[str], *, min_side_px: int, reading: Reading = AS_IT_COMES
) -> Iterator[Seen | Refused]:
    """What each file is, in the order of ``paths``.

    Args:
        raw_dir: folder that the paths are relative to.
        paths: POSIX paths.
        min_side_px: as for `look`.
        reading: of the data set.
    """

    def look_at(path: str) -> Seen | Refused:
        return look(raw_dir, path, min_side_px, reading)

    return ordered_map(look_at, paths, window=_WINDOW)

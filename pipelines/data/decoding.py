"""Look at every raw image once: decode, hash, fingerprint, by a few threads.

Decoding and hashing release the interpreter lock, so threads keep every core at work on
photographs. A pool of processes hangs for ever if the system ends a worker while it writes.
Only small tuples are kept and only a window of files is in flight, so memory does not grow with the
images. A bad file becomes a `Refused`; it never stops the others. Once the files were read, their
content says which are DICOM, and which of these show the same patient: the default group where
nobody states another (docs/adr/0021). Called by `prepare` and `validate`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.data.dicom import patient_key
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, fingerprint
from pipelines.data.images import glance, read_file
from pipelines.data.manifest import Record
from pipelines.data.pixel_range import AS_IT_COMES, Reading, UnscaledError
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


def examine(
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


def examine_all(
    raw_dir: Path, paths: Sequence[str], *, min_side_px: int, reading: Reading = AS_IT_COMES
) -> Iterator[Seen | Refused]:
    """What each file is, in the order of ``paths``.

    Args:
        raw_dir: folder that the paths are relative to.
        paths: POSIX paths.
        min_side_px: as for `examine`.
        reading: of the data set.
    """

    def examine_one(path: str) -> Seen | Refused:
        return examine(raw_dir, path, min_side_px, reading)

    return ordered_map(examine_one, paths, window=_WINDOW)


# -- patients -------------------------------------------------------------------------------------
_LOG = logging.getLogger(__name__)


def by_patient(
    record_of: Mapping[str, Record], seen: Iterable[Seen], raw_dir: Path
) -> dict[str, Record]:
    """The records of DICOM files for which no group is stated, those of a patient in one group.

    Patients are told apart by a hash with a salt that is drawn anew each time and never leaves
    this function; a group is called by the first of its files, so that the result is the same
    each time and says nothing of the id.

    Args:
        record_of: by path; a record whose group is its path states none.
        seen: what each file is.
        raw_dir: where the files lie.

    Returns:
        By path, the records that change. A file without a patient's id stays a group of its own.

    Raises:
        CorruptImageError: if a file has changed since it was looked at.
    """
    salt = secrets.token_bytes(32)
    files_of: dict[str, list[str]] = {}
    for path in sorted(each.path for each in seen if each.format == "DICOM"):
        if record_of[path].group == path:
            key = patient_key(read_file(raw_dir / path, path), salt)
            if key is not None:
                files_of.setdefault(key, []).append(path)
    if len(files_of) == 1 and len(only := next(iter(files_of.values()))) > 1:
        _LOG.warning(
            "all %d DICOM files carry the same patient id, as files do that were made anonymous: "
            "one group. State groups in records.csv, or by group_pattern in the card",
            len(only),
        )
    return {
        path: dataclasses.replace(record_of[path], group=f"patient of {paths[0]}")
        for paths in files_of.values()
        for path in paths
    }

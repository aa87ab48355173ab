"""Look at every raw image once: decode, hash, fingerprint, by a few threads.

Decoding and hashing release the interpreter lock, so threads keep every core at work on
photographs. A pool of processes hangs for ever if the system ends a worker while it writes.
Only small tuples are kept and only a window of files is in flight, so memory does not grow with the
images. A bad file becomes a `Refused`; it never stops the others.

What only the files' content says of a whole set follows: which DICOM files show the same patient,
the default group where nobody states another (docs/adr/0021); and the range of deep pixels, which
`new` writes into the first card and `prepare` proposes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pipelines.data.deep_files import is_deep_png
from pipelines.data.dicom import patient_key
from pipelines.data.fingerprints import GLANCE_PX, Fingerprint, fingerprint
from pipelines.data.images import glance, is_deep, levels_of, read_file
from pipelines.data.manifest import Entry, Record, Split
from pipelines.data.pixel_range import AS_IT_COMES, Reading, UnscaledError, outside_words
from pipelines.data.workers import ordered_map
from pipelines.errors import CorruptImageError, DataError
from pipelines.paths import TaskPaths
from pipelines.progress import track

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
    """What one file is; images with a shorter side below ``min_side_px`` are refused."""
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
    """What each file is, in the order of ``paths``."""

    def examine_one(path: str) -> Seen | Refused:
        return examine(raw_dir, path, min_side_px, reading)

    return ordered_map(examine_one, paths, window=_WINDOW)


def decode(
    raw_dir: Path, paths: Sequence[str], min_side_px: int, reading: Reading, what: str
) -> tuple[list[Seen], list[Refused]]:
    """The files that may enter and those that may not, shown by a bar that says ``what``."""
    seen, refused = list[Seen](), list[Refused]()
    for found in track(
        examine_all(raw_dir, paths, min_side_px=min_side_px, reading=reading), what, len(paths)
    ):
        if isinstance(found, Refused):
            refused.append(found)
        else:
            seen.append(found)
    return seen, refused


def entries_of(
    seen: Iterable[Seen],
    records: Iterable[Record],
    groups: Iterable[str],
    splits: Iterable[Split],
) -> list[Entry]:
    """The rows of a manifest, from what is known of each image."""
    return [
        Entry(
            path=image.path,
            label=record.label,
            group=group,
            source=record.source,
            split=split,
            sha256=image.sha256,
            width_px=image.width_px,
            height_px=image.height_px,
            truth=record.truth,
        )
        for image, record, group, split in zip(seen, records, groups, splits, strict=True)
    ]


# -- patients -------------------------------------------------------------------------------------
_LOG = logging.getLogger(__name__)


def by_patient(
    record_of: Mapping[str, Record], seen: Iterable[Seen], raw_dir: Path
) -> dict[str, Record]:
    """The records of DICOM files for which no group is stated, those of a patient in one group.

    Patients are told apart by a hash with a salt that is drawn anew each time and never leaves
    this function; a group is called by the first of its files, so that the result is the same
    each time and says nothing of the id.

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


# -- range of the set -----------------------------------------------------------------------------
#: Deep files that are measured at most: half a minute for radiographs of 4 megapixels.
_MAX_MEASURED = 500
BitDepth = Literal[8, 10, 12, 14, 16, 32]
_BIT_DEPTHS: tuple[BitDepth, ...] = (10, 12, 14, 16)
_FULL_16 = 65_535.0
#: Enough of a file to tell a deep PNG; and beginnings of formats that hold 8 bits a channel only.
_HEAD_BYTES = 32
_PNG, _NEVER_DEEP = b"\x89PNG", (b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


@dataclass(frozen=True, slots=True)
class MeasuredRange:
    """The stored values of the deep files of a set, from the least to the greatest.

    Attributes:
        bit_depth: that holds them, as a card states it.
        n_files: deep files, of which ``n_measured`` were measured.
    """

    low: float
    high: float
    bit_depth: BitDepth
    n_files: int
    n_measured: int

    def in_card(self) -> dict[str, int | float]:
        """What stands in card.yaml as ``image.range``."""
        return {"low": _plain(self.low), "high": _plain(self.high)}


def measure_range(paths: Sequence[Path]) -> MeasuredRange | None:
    """The stored values of the deep files among some; None where none has a finite value.

    Files that are not deep, or no images, are passed over. Of more than `_MAX_MEASURED` deep ones,
    so many are measured, evenly spread.
    """
    deep = [path for path in paths if _is_deep(path)]
    step = max(1, -(-len(deep) // _MAX_MEASURED))
    extents, is_integer = list[tuple[float, float]](), True
    for path in deep[::step]:
        try:
            levels = levels_of(path)
        except CorruptImageError:
            continue
        extent = levels.extent() if levels is not None else None
        if levels is not None and extent is not None:
            extents.append(extent)
            # Of one of 32 bits, or a signed one, no number of bits below it says anything.
            is_integer = is_integer and levels.full is not None and levels.full[1] <= _FULL_16
    if not extents:
        return None
    low, high = _joined(extents)
    depth: BitDepth = 32
    if is_integer:
        depth = next((bits for bits in _BIT_DEPTHS if high < 2**bits), 16)
    return MeasuredRange(low, high, depth, len(deep), len(extents))


def check_scale(refused: Sequence[Refused], files: TaskPaths) -> None:
    """Stop where deep files have no scale, and propose the one that the set has.

    Raises:
        DataError: names how many, an example, their values, and what to write into the card.
    """
    deep = [each for each in refused if each.kind == "unscaled"]
    if not deep:
        return
    extents = [each.extent for each in deep if each.extent is not None]
    if extents:
        low, high = _joined(extents)
        measured = f"their stored values go from {_plain(low)} to {_plain(high)}"
        range_ = f"{{low: {_plain(low)}, high: {_plain(high)}}}"
    else:
        measured, range_ = "they hold no finite value", "{low: ..., high: ...}"
    raise DataError(
        f"{files.raw_dir}: {len(deep):,} image(s) have more than 8 bits a channel, e.g. "
        f"{deep[0].path!r}, and no range fits them: {measured}. Expected one range for the whole "
        f"set: write `range: {range_}` under `image:` in {files.card}, or values that you know to "
        f"be black and white, and run `fieldlens prepare {files.task}` again."
    )


def tell_outside(task: str, seen: Iterable[Seen], reading: Reading) -> None:
    """Warn of files that leave the stated range."""
    beyond = [each for each in seen if each.outside > 0]
    if beyond:
        most = max(beyond, key=lambda each: each.outside)
        words = outside_words(most.outside, reading.range)
        _LOG.warning("%s: %d image(s) leave the range; %r: %s", task, len(beyond), most.path, words)


def _is_deep(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
        if head.startswith(_PNG):
            return is_deep_png(head)
        return not head.startswith(_NEVER_DEEP) and is_deep(path)
    except (OSError, CorruptImageError):
        return False


def _joined(extents: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The least and the greatest of all; a set of one value still needs two."""
    low, high = min(low for low, _ in extents), max(high for _, high in extents)
    return (low, high) if low < high else (low, low + 1)


def _plain(value: float) -> int | float:
    return int(value) if value.is_integer() else value

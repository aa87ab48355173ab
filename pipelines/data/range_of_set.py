"""The range of deep pixels that a whole set has: measured, proposed, and told where files leave it.

Called by `new`, which writes it into the first card, and by `prepare`, which proposes it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.data.decoding import Refused, Seen
from pipelines.data.deep_files import is_deep_png
from pipelines.data.images import is_deep, levels_of
from pipelines.data.pixel_range import Reading, outside_words
from pipelines.errors import CorruptImageError, DataError
from pipelines.paths import TaskPaths

_LOG = logging.getLogger(__name__)

#: Deep files that are measured at most: half a minute for radiographs of 4 megapixels.
MAX_MEASURED = 500
BitDepth = Literal[8, 10, 12, 14, 16, 32]
_BIT_DEPTHS: tuple[BitDepth, ...] = (10, 12, 14, 16)
_FULL_16 = 65_535.0
#: Enough of a file to tell a deep PNG; and beginnings of formats that hold 8 bits a channel only.
_HEAD_BYTES = 32
_PNG, _NEVER_DEEP = b"\x89PNG", (b"\xff\xd8\xff", b"GIF8", b"BM", b"RIFF")


@dataclass(frozen=True, slots=True)
class MeasuredRange:
    """The stored values of the deep files of a set.

    Attributes:
        low: the least.
        high: the greatest.
        bit_depth: that holds them, as a card states it.
        n_files: deep files.
        n_measured: of them, those that were measured.
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
    """The stored values of the deep files among some.

    Args:
        paths: files; those that are not deep, or no images, are passed over. Of more than
            `MAX_MEASURED` deep ones, so many are measured, evenly spread.

    Returns:
        None where there is no deep file, or none with a finite value.
    """
    deep = [path for path in paths if _is_deep(path)]
    step = max(1, -(-len(deep) // MAX_MEASURED))
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

    Args:
        refused: files that could not be used.

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
    """Warn of files that leave the stated range.

    Args:
        seen: files that were read.
        reading: states the range.
    """
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

"""How the files of a data set are read, and what a picture may cost before it is decoded.

One scale of deep pixels and one bound of the aspect: the card states both, `prepare` reads by them,
and they travel with the model, so that every later door of the same model reads alike. What lies
outside the range is clipped and its share is told; nothing is ever stretched by a picture's own
peak, since one bright pixel would then darken the rest (docs/adr/0020). Not a number counts as
outside and is shown as the low end.

The bounds of pixels, passes over them and shape keep a promise: no file, accepted or refused, costs
a predictor more than 500 MB and 2 s of a core. Measured by tests/data/test_pixel_range.py, in a
process a file. NumPy and Pillow alone. Called by `pipelines.data.images`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import ConfigError, CorruptImageError

#: ``full`` (the whole range of the stored type), two stored values, or nothing stated.
Scale = Literal["full"] | tuple[float, float] | None

#: A longer picture leaves a model less than a twentieth of it to look at, or a smear.
MAX_ASPECT = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is the same for every file of a data set.

    Attributes:
        range: which stored values of a picture with more than 8 bits a channel are shown as black
            and as white; None refuses such a picture. Pictures of 8 bits are taken as they are:
            their file says already what is black and white.
        max_aspect: a picture whose longer side is more than so many times the shorter is refused.
    """

    range: Scale = None
    max_aspect: float = MAX_ASPECT

    def __post_init__(self) -> None:
        """Refuse what is no range and no bound."""
        if isinstance(self.range, tuple):
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"range: expected two numbers, low below high, got {self.range}")
        if not (math.isfinite(self.max_aspect) and self.max_aspect >= 1):
            raise ValueError(f"max_aspect must be at least 1, got {self.max_aspect}")


#: Where no data set states anything: deep pictures are refused.
AS_IT_COMES = Reading()


def words(scale: Scale) -> str:
    """A range as a person reads it, e.g. ``0..4095``."""
    if isinstance(scale, tuple):
        return f"{scale[0]:.10g}..{scale[1]:.10g}"
    return "of its type" if scale == "full" else "not stated"


# -- more than 8 bits a channel by a range --------------------------------------------------------
#: Stored values, and opacity from 0 to 65,535 or None; both of some rows.
Rows = tuple[NDArray[Any], NDArray[Any] | None]

#: Values are worked on so many at a time: a copy of all as float64 would need a gigabyte.
_STRIP_VALUES = 2_000_000
_OPAQUE = 65_535


class UnscaledError(CorruptImageError):
    """A picture of more than 8 bits a channel, and nothing says which values are black and white.

    Attributes:
        extent: its least and greatest stored value, so that a range can be proposed; None if it
            holds no number.
        is_float: whether its values are floating-point numbers, which have no full range.
    """

    def __init__(
        self, name: str, reason: str, extent: tuple[float, float] | None, is_float: bool
    ) -> None:
        super().__init__(name, reason)
        self.extent = extent
        self.is_float = is_float

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from all arguments: the error crosses process boundaries in `prepare`."""
        return (type(self), (self.name, self.reason, self.extent, self.is_float))


@dataclass(frozen=True, slots=True)
class Levels:
    """The stored values of one picture, some rows at a time.

    Attributes:
        rows: gives the values (n, width) or (n, width, 3) and the opacity (n, width) of the rows
            from one number to another.
        full: least and greatest value of the stored type; None for floating point.
        is_inverted: whether low values are white (MINISWHITE, MONOCHROME1).
    """

    width: int
    height: int
    rows: Callable[[int, int], Rows]
    full: tuple[float, float] | None
    is_inverted: bool = False

    def strips(self) -> Iterator[tuple[int, NDArray[Any], NDArray[Any] | None]]:
        """First row, values and opacity of strips, from top to bottom."""
        n_rows = max(1, _STRIP_VALUES // self.width)
        for top in range(0, self.height, n_rows):
            yield top, *self.rows(top, min(top + n_rows, self.height))

    def extent(self) -> tuple[float, float] | None:
        """Least and greatest value; what is no number, or infinite, is left out."""
        least, most = np.inf, -np.inf
        for _, values, _ in self.strips():
            finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            if finite.size:
                least, most = min(least, float(finite.min())), max(most, float(finite.max()))
        return (least, most) if least <= most else None


def as_rgb(levels: Levels, scale: Scale, name: str) -> tuple[Image.Image, float]:
    """The picture by a range, mode RGB, transparency over white; the share of its pixels outside.

    Raises:
        UnscaledError: if no range is stated, or ``full`` of floating-point values.
    """
    low, high = _bounds(levels, scale, name)
    picture = Image.new("RGB", (levels.width, levels.height))
    n_outside = 0
    for top, values, opacity in levels.strips():
        shown, is_outside = _shown(values, low, high)
        n_outside += int(is_outside.sum())
        if levels.is_inverted:
            np.subtract(255, shown, out=shown)
        if opacity is not None:
            shown = _over_white(shown, opacity)
        strip = Image.fromarray(np.ascontiguousarray(shown))
        picture.paste(strip if strip.mode == "RGB" else strip.convert("RGB"), (0, top))
    return picture, n_outside / (levels.width * levels.height)


def outside_words(share: float, scale: Scale) -> str:
    """One sentence on the share of the pixels that were clipped; empty if there are none."""
    if share <= 0:
        return ""
    percent = f"{share:.1%}" if share >= 0.001 else "Less than 0.1%"
    return (
        f"{percent.replace('%', ' %')} of the pixels lie outside the range {words(scale)} of the "
        f"training data and are clipped."
    )


def _bounds(levels: Levels, scale: Scale, name: str) -> tuple[float, float]:
    if isinstance(scale, tuple):
        return scale
    if scale == "full" and levels.full is not None:
        return levels.full
    extent = levels.extent()
    stored = f"stored values {words(extent)}" if extent is not None else "no finite value"
    is_float = levels.full is None
    why = (
        f"it holds floating-point numbers ({stored}), which have no full range; expected two values"
        if scale == "full"
        else f"it has more than 8 bits a channel ({stored}), and nothing states which values are "
        f"black and white; expected a range"
    )
    raise UnscaledError(name, f"{why} in the data set's card.yaml (image.range)", extent, is_float)


def _shown(
    values: NDArray[Any], low: float, high: float
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Grey levels, and for each pixel whether a channel of it is outside."""
    if values.dtype == np.uint16:
        # One look-up a value: a tenth of the time of floating point.
        every = np.arange(65_536)
        levels, is_beyond = _scaled(every, low, high)[values], ((every < low) | (every > high))
        outside = is_beyond[values]
    else:
        # In float64, as the range is: a float32 beside it would be compared in float32.
        wide = values.astype(np.float64)
        outside = ~((wide >= low) & (wide <= high))
        levels = _scaled(wide, low, high)
    return levels, outside.any(axis=-1) if outside.ndim == 3 else outside


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    wide = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
    np.clip(wide, low, high, out=wide)
    wide -= low
    wide *= 255.0 / (high - low)
    return np.rint(wide, out=wide).astype(np.uint8)


def _over_white(shown: NDArray[np.uint8], opacity: NDArray[Any]) -> NDArray[np.uint8]:
    share = opacity.astype(np.float64) / _OPAQUE
    if shown.ndim == 3:
        share = share[:, :, np.newaxis]
    return np.rint(255.0 - (255.0 - shown) * share).astype(np.uint8)


# -- what a picture may cost ----------------------------------------------------------------------
#: Names the environment's setting of `max_pixels`.
PIXELS_VARIABLE = "FIELDLENS_MAX_PIXELS"

#: 64 megapixels: above any phone's ordinary photo (50 MP), and 256 MB once decoded as RGB.
MAX_PIXELS = 64_000_000

#: A JPEG may declare so many times more, since it is decoded at 1/2, 1/4 or 1/8 of its size: 384
#: megapixels, above a phone's largest (200 MP). Only the entropy-coded stream is read in full.
_DRAFTED = 6

#: How many pixels one pixel counts for: what it costs in memory and time, against one of a JPEG.
#: By format and kind. One channel has 1 byte a pixel, RGB has 4 in Pillow, and alpha or CMYK a copy
#: besides; PNG takes longest for its filters, WebP has three buffers, TIFF the file twice.
_COST = {
    ("PNG", "grey"): 1.0,
    ("PNG", "colour"): 1.6,
    ("PNG", "alpha"): 2.5,
    ("PNG", "deep grey"): 2.5,
    ("PNG", "deep colour"): 5.0,
    ("PNG", "deep alpha"): 7.0,
    ("GIF", "grey"): 1.0,
    ("BMP", "grey"): 1.0,
    ("BMP", "colour"): 1.6,
    ("JPEG", "grey"): 1.0,
    ("JPEG", "colour"): 1.0,
    ("JPEG", "alpha"): 2.0,
    ("TIFF", "grey"): 2.0,
    ("TIFF", "colour"): 2.0,
    ("TIFF", "alpha"): 3.0,
    ("TIFF", "deep grey"): 2.5,
    ("TIFF", "32-bit grey"): 4.0,
    **{("HEIF", "colour"): 1.3, ("HEIF", "alpha"): 2.0, ("AVIF", "grey"): 1.3},
    **{("AVIF", "colour"): 1.3, ("AVIF", "alpha"): 2.0},
    **{("JPEG2000", "grey"): 3.0, ("JPEG2000", "deep grey"): 3.0, ("JPEG2000", "alpha"): 4.0},
    **{("DICOM", "grey"): 1.3, ("DICOM", "colour"): 2.0, ("DICOM", "deep grey"): 1.3},
}
_DEAREST = 3.0
_DEAREST_DEEP = 7.0

#: Larger tiles than any writer makes (512 x 512 is usual) need a reason: a picture as large.
_MAX_TILE_PIXELS = 4_194_304

#: Pillow reads run-length encoded BMP files in Python, in a tenth of a second a megabyte.
_MAX_RLE_BYTES = 5_000_000


def max_pixels() -> int:
    """Pixels that are decoded at most: as ``FIELDLENS_MAX_PIXELS`` says, else `MAX_PIXELS`.

    Raises:
        ConfigError: if it is not a whole number from 1.
    """
    value = os.environ.get(PIXELS_VARIABLE)
    if not value:
        return MAX_PIXELS
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(
            f"{PIXELS_VARIABLE}: expected a whole number of pixels from 1 (got {value!r}). "
            f"Unset it for {MAX_PIXELS:,}."
        )
    return int(value)


def refuse_by_aspect(width_px: int, height_px: int, reading: Reading, name: str) -> None:
    """Refuse a picture that is all length: it has no view that a model could look at.

    Raises:
        CorruptImageError: if it is longer than the bound.
    """
    longer, shorter = max(width_px, height_px), max(1, min(width_px, height_px))
    if longer > reading.max_aspect * shorter:
        raise CorruptImageError(
            name,
            f"{width_px:,} x {height_px:,} pixels have no sensible view: the longer side is "
            f"{longer / shorter:,.0f} times the shorter, and at most {reading.max_aspect:g} times "
            f"is accepted (image.max_aspect in the data set's card.yaml)",
        )


def fitting_scale(image: Image.Image, *, is_deep: bool) -> int:
    """By what a JPEG's sides must be divided for its pixels to be within the bound: 1, 2, 4, 8."""
    bound = max_pixels() / _cost(image, is_deep=is_deep)
    return next((s for s in (1, 2, 4) if image.width * image.height <= bound * s * s), 8)


def refuse_by_pixels(image: Image.Image, name: str, *, is_deep: bool) -> None:
    """Refuse a picture that would cost too much to decode; a JPEG is asked about after its `draft`.

    Raises:
        CorruptImageError: names the bound and the setting that moves it.
    """
    most = int(max_pixels() / _cost(image, is_deep=is_deep))
    if image.width * image.height > most:
        raise CorruptImageError(name, _too_many(image, most, _kind(image, is_deep=is_deep)))


def refuse_by_header(image: Image.Image, n_bytes: int, name: str) -> None:
    """Refuse what is too much whatever the scale that it is decoded at.

    Raises:
        CorruptImageError: names the bound and the setting that moves it.
    """
    most = _DRAFTED * max_pixels()
    if image.format in {"JPEG", "MPO"} and image.width * image.height > most:
        raise CorruptImageError(name, _too_many(image, most, "JPEG"))
    is_run_length = any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ()))
    if is_run_length and n_bytes > _MAX_RLE_BYTES:
        raise CorruptImageError(
            name,
            f"a run-length encoded BMP of {n_bytes:,} bytes; of such files at most "
            f"{_MAX_RLE_BYTES:,} are read. Save it as PNG",
        )


def refuse_by_tile(tile_pixels: int, image: Image.Image, name: str) -> None:
    """Refuse a TIFF whose tiles are far larger than its picture: each is decoded whole."""
    if tile_pixels > max(_MAX_TILE_PIXELS, 2 * image.width * image.height):
        raise CorruptImageError(
            name, f"tiles of {tile_pixels:,} pixels for {image.width:,} x {image.height:,} of them"
        )


@contextmanager
def told_if_memory_ends(name: str) -> Iterator[None]:
    """Make a `MemoryError` a refusal of the picture that needed it, a `CorruptImageError`."""
    try:
        yield
    except MemoryError:
        raise CorruptImageError(name, "there is not enough memory to look at it") from None


def _too_many(image: Image.Image, most: int, kind: str) -> str:
    return (
        f"it declares {image.width:,} x {image.height:,} pixels; of its kind ({kind}) at most "
        f"{most:,} are decoded, by the setting {PIXELS_VARIABLE} (now {max_pixels():,})"
    )


def _kind(image: Image.Image, *, is_deep: bool) -> str:
    form = "JPEG" if image.format == "MPO" else image.format
    return f"{form}, {_channels(image, is_deep=is_deep)}"


def _channels(image: Image.Image, *, is_deep: bool) -> str:
    if is_deep:
        if image.mode in {"I", "F"}:
            return "32-bit grey"
        if image.mode.startswith("I") or image.mode == "L":
            return "deep grey"
        return "deep colour" if image.mode == "RGB" else "deep alpha"
    if image.mode in {"1", "L", "P"}:
        return "grey"
    is_plain = image.mode == "RGB" and "transparency" not in image.info
    return "colour" if is_plain else "alpha"


def _cost(image: Image.Image, *, is_deep: bool) -> float:
    form = "JPEG" if image.format == "MPO" else (image.format or "")
    dearest = _DEAREST_DEEP if is_deep else _DEAREST
    return _COST.get((form, _channels(image, is_deep=is_deep)), dearest)

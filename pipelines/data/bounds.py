"""What a picture may cost before it is decoded: pixels, passes over them, and its shape.

The promise that these bounds keep: no file, accepted or refused, costs a predictor more than 500 MB
and 2 s of a core. Measured by tests/data/test_bounds.py, in a process a file. Called by
`pipelines.data.images`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from pipelines.data.pixel_range import Reading
from pipelines.errors import ConfigError, CorruptImageError

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

    Args:
        width_px: of the picture.
        height_px: of the picture.
        reading: has the bound.
        name: what to call the picture in messages.

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
    """By how much a JPEG's sides must be divided for its pixels to be within the bound: 1, 2, 4, 8.

    Args:
        image: not decoded yet.
        is_deep: whether it has more than 8 bits a channel.
    """
    bound = max_pixels() / _cost(image, is_deep=is_deep)
    return next((s for s in (1, 2, 4) if image.width * image.height <= bound * s * s), 8)


def refuse_by_pixels(image: Image.Image, name: str, *, is_deep: bool) -> None:
    """Refuse a picture that would cost too much to decode.

    Args:
        image: not decoded yet; after `draft`, if it is a JPEG.
        name: what to call it in messages.
        is_deep: whether it has more than 8 bits a channel.

    Raises:
        CorruptImageError: names the bound and the setting that moves it.
    """
    most = int(max_pixels() / _cost(image, is_deep=is_deep))
    if image.width * image.height > most:
        raise CorruptImageError(name, _too_many(image, most, _kind(image, is_deep=is_deep)))


def refuse_by_header(image: Image.Image, n_bytes: int, name: str) -> None:
    """Refuse what is too much whatever the scale that it is decoded at.

    Args:
        image: not decoded yet.
        n_bytes: size of the file.
        name: what to call it in messages.

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
    """Refuse a TIFF whose tiles are far larger than its picture: each is decoded whole.

    Args:
        tile_pixels: of one tile; 0 where there are none.
        image: not decoded yet.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if they are.
    """
    if tile_pixels > max(_MAX_TILE_PIXELS, 2 * image.width * image.height):
        raise CorruptImageError(
            name, f"tiles of {tile_pixels:,} pixels for {image.width:,} x {image.height:,} of them"
        )


@contextmanager
def told_if_memory_ends(name: str) -> Iterator[None]:
    """Make a `MemoryError` a refusal of the picture that needed it.

    Args:
        name: what to call the picture in messages.

    Raises:
        CorruptImageError: in place of a `MemoryError`.
    """
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

"""What a picture may cost before it is decoded: pixels, passes over them, and its shape.

The promise that these bounds keep: no file, accepted or refused, costs a predictor more than 500 MB
and 2 s of a core. Measured by tests/data/test_bounds.py, in a process a file. Called by
`pipelines.data.images`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.reading import Reading
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
    ("GIF", "grey"): 1.0,
    ("BMP", "grey"): 1.0,
    ("BMP", "colour"): 1.6,
    ("JPEG", "grey"): 1.0,
    ("JPEG", "colour"): 1.0,
    ("JPEG", "alpha"): 2.0,
    ("TIFF", "grey"): 2.0,
    ("TIFF", "colour"): 2.0,
    ("TIFF", "alpha"): 3.0,
    **{("HEIF", "colour"): 1.3, ("HEIF", "alpha"): 2.0, ("AVIF", "grey"): 1.3},
    **{("AVIF", "colour"): 1.3, ("AVIF", "alpha"): 2.0},
    **{("JPEG2000", "grey"): 3.0, ("JPEG2000", "deep grey"): 3.0, ("JPEG2000", "alpha"): 4.0},
    **{("DICOM", "grey"): 1.3, ("DICOM", "colour"): 2.0, ("DICOM", "deep colour"): 1.3},
}
_DEAREST = 3.0
_DEAREST_DEEP = 5.0

#: Larger tiles than any writer makes (512 x 512 is usual) need a reason: a picture as large.
_MAX_TILE_PIXELS = 4_194_304

#: Passes over a picture's pixels by a JPEG's scans: 25 scans of 64 megapixels, in about a second.
#: Encoders write 10 (libjpeg) to 20; a scan that changes nothing costs a file 200 bytes.
_MAX_SCANNED_PIXELS = 1_600_000_000
#: A JPEG of several scans is kept whole as coefficients, two bytes each, whatever its scale.
_MAX_COEFFICIENT_BYTES = 340_000_000

#: Of JPEG (ITU-T T.81, B.1.1.3 and B.2.2): markers, and where a frame's header has its components.
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
_SEQUENTIAL_FRAMES = frozenset({b"\xff\xc0", b"\xff\xc1"})
#: Second bytes of frames with arithmetic coding, slow to read; no camera writes them.
_ARITHMETIC_FRAMES = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_N_COMPONENTS_AT = 5
_TABLES_AND_NOTES = frozenset(
    bytes([0xFF, code]) for code in (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
)
#: Pillow reads run-length encoded BMP files in Python, in a tenth of a second a megabyte.
_MAX_RLE_BYTES = 5_000_000
_USUAL_SEGMENTS = _TABLES_AND_NOTES | _SEQUENTIAL_FRAMES | {_START_OF_SCAN}


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


def refuse_by_scans(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse a progressive JPEG, also inside a TIFF, that goes over its pixels again and again.

    The marker cannot stand in entropy-coded data (ITU-T T.81, B.1.1.5); one in a preview counts.

    Args:
        image: not decoded yet.
        data: bytes of the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if its scans are too many, or too large.
    """
    is_jpeg = image.format in {"JPEG", "MPO"}
    if is_jpeg and _has_one_scan(data):
        return
    if is_jpeg or image.info.get("compression") in {"jpeg", "tiff_jpeg"}:
        # As `data.count`, which takes 5 ms for a phone's photo where this takes 1.
        codes = np.frombuffer(data, dtype=np.uint8)
        n_scans = _n_markers(codes, _START_OF_SCAN[1])
        if n_scans * image.width * image.height > _MAX_SCANNED_PIXELS:
            raise CorruptImageError(name, f"{n_scans:,} scans of so many pixels are no photograph")
        if any(_n_markers(codes, code) for code in _ARITHMETIC_FRAMES):
            raise CorruptImageError(name, "arithmetic coding; save it as an ordinary JPEG")
    if is_jpeg and _coefficient_bytes(image) > _MAX_COEFFICIENT_BYTES:
        raise CorruptImageError(
            name,
            f"{image.width:,} x {image.height:,} pixels as a progressive JPEG: it would take "
            f"{_coefficient_bytes(image) / 1e6:,.0f} MB, at most "
            f"{_MAX_COEFFICIENT_BYTES / 1e6:,.0f} are spent. Save it without progressive scans",
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
        is_grey = image.mode.startswith("I;16")
        return "deep grey" if is_grey else "deep colour"
    if image.mode in {"1", "L", "P"}:
        return "grey"
    is_plain = image.mode == "RGB" and "transparency" not in image.info
    return "colour" if is_plain else "alpha"


def _cost(image: Image.Image, *, is_deep: bool) -> float:
    form = "JPEG" if image.format == "MPO" else (image.format or "")
    dearest = _DEAREST_DEEP if is_deep else _DEAREST
    return _COST.get((form, _channels(image, is_deep=is_deep)), dearest)


def _coefficient_bytes(image: Image.Image) -> float:
    """Two bytes a coefficient, of every component at its own sampling (T.81, A.1.1)."""
    layers = getattr(image, "layer", None) or [(1, 1, 1, 0)] * 4
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    share: float = sum(across * down for _, across, down, _ in layers) / max(1, most)
    return 2.0 * share * image.width * image.height


def _n_markers(codes: NDArray[np.uint8], code: int) -> int:
    """How often the byte 0xFF stands before another."""
    return int((codes[np.flatnonzero(codes[1:] == code)] == 0xFF).sum())


def _has_one_scan(data: bytes) -> bool:
    """Whether a JPEG's header rules out a second scan, as that of most cameras' photos does.

    It does where the frame is sequential and its first scan has all of its components: libjpeg
    refuses a scan after that one. False where the header holds anything unusual.
    """
    at, n_components = len(_START_OF_IMAGE), 0
    while (marker := data[at : at + 2]) in _USUAL_SEGMENTS:
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2:
            return False
        segment = data[at + 4 : at + 2 + length]
        if marker == _START_OF_SCAN:
            return segment[:1] == bytes([n_components])
        if marker in _SEQUENTIAL_FRAMES and len(segment) > _N_COMPONENTS_AT:
            n_components = segment[_N_COMPONENTS_AT]
        at += 2 + length
    return False

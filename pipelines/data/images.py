"""Bytes of unknown origin -> an RGB picture.

`open_image` is the only door for pictures (`glance` is the same door with a smaller picture behind
it): training, calibration, evaluation, the predictor and the apps all come through here, and go on
to `preprocess`. Needs NumPy and Pillow alone, so that serving stays small.
"""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.data.colour_modes import to_rgb
from pipelines.data.formats import DECODER_ERRORS, FORMATS_TOLD, MAX_PIXELS_OF
from pipelines.data.opening import opened
from pipelines.errors import CorruptImageError

#: 64 megapixels: above any phone's ordinary photo (50 MP), and 192 MB once decoded as RGB.
MAX_PIXELS = 64_000_000

#: Pictures of 32 bits a pixel are no photographs, and take NumPy four seconds for 64 megapixels.
_MAX_DEEP_PIXELS = 16_000_000

#: A file larger than this is refused before it is read.
MAX_FILE_BYTES = 100_000_000

#: Passes over a picture's pixels by a JPEG's scans: 25 scans of 64 megapixels, in about a second.
#: Encoders write 10 (libjpeg) to 20; a scan that changes nothing costs a file 200 bytes.
_MAX_SCANNED_PIXELS = 1_600_000_000
#: Of JPEG (ITU-T T.81, B.1.1.3 and B.2.2): markers, and where a frame's header has its components.
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
_SEQUENTIAL_FRAMES = frozenset({b"\xff\xc0", b"\xff\xc1"})
_N_COMPONENTS_AT = 5
_TABLES_AND_NOTES = frozenset(
    bytes([0xFF, code]) for code in (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
)
_USUAL_SEGMENTS = _TABLES_AND_NOTES | _SEQUENTIAL_FRAMES | {_START_OF_SCAN}

#: What makes a picture upright, by its EXIF orientation (tag 0x0112; EXIF 2.32, section 4.6.4).
_ORIENTATION_TAG = 0x0112
_TURN = Image.Transpose
_UPRIGHT = {
    **{2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM},
    **{5: _TURN.TRANSPOSE, 6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What a file says of its picture, before anything was normalised away.

    Attributes:
        format: Pillow's name of the decoder, e.g. ``JPEG``.
        mode: Pillow's mode as stored, e.g. ``CMYK`` or ``I;16``.
        width_px: stored width, before the EXIF rotation.
        height_px: stored height, before the EXIF rotation.
        n_bytes: size of the file.
        is_exif_rotated: whether an EXIF orientation was applied; not told of a TIFF, which Pillow
            turns itself, the sizes above too.
    """

    format: str
    mode: str
    width_px: int
    height_px: int
    n_bytes: int
    is_exif_rotated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage(_Facts):
    """A decoded picture, upright and of mode RGB, and the facts of its file."""

    rgb: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance(_Facts):
    """A small copy of a picture, upright and of mode L, and the facts of its file."""

    grey: Image.Image


def open_image(
    source: Path | bytes, *, name: str | None = None, least_side_px: int | None = None
) -> OpenedImage:
    """The picture in a file or in bytes, decoded fully, upright and RGB.

    Palette and alpha are composited over white, CMYK is converted, and a 16-bit grey image is
    scaled by the smallest usual bit depth (8, 10, 12, 14, 16) that holds its largest value.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.
        least_side_px: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as `glance` does, so
            far as neither side gets smaller than this; null decodes every pixel.

    Raises:
        CorruptImageError: if it is empty, too large, truncated, animated or of another format.
    """
    with _guarded(source, name) as (image, n_bytes):
        (width_px, height_px), mode = image.size, image.mode
        if least_side_px is not None:
            image.draft(None, (least_side_px, least_side_px))
        image.load()
        orientation = _orientation(image)
        return OpenedImage(
            rgb=_upright_rgb(image, orientation),
            format=image.format or "unknown",
            mode=mode,
            width_px=width_px,
            height_px=height_px,
            n_bytes=n_bytes,
            is_exif_rotated=orientation in _UPRIGHT,
        )


def glance(source: Path | bytes, *, side_px: int, name: str | None = None) -> Glance:
    """A small grey copy of a picture, for a fraction of the work of `open_image`.

    It reads the whole file and refuses what `open_image` refuses: of a JPEG the entropy-coded
    stream is read to its end, and only the arithmetic is done at a scale of 1/2, 1/4 or 1/8.

    Args:
        source: a path, or the bytes of a file.
        side_px: neither side of the copy is smaller than this, unless the stored one is.
        name: what to call it in messages; the path by default.

    Raises:
        CorruptImageError: as `open_image`.
    """
    with _guarded(source, name) as (image, n_bytes):
        (width_px, height_px), mode = image.size, image.mode
        image.draft("L", (side_px, side_px))
        image.load()
        orientation = _orientation(image)
        is_plain = image.mode in {"L", "RGB"} and "transparency" not in image.info
        small = image if is_plain else to_rgb(image)
        small = small.reduce(max(1, min(small.size) // side_px))
        return Glance(
            grey=_upright(small.convert("L"), orientation),
            format=image.format or "unknown",
            mode=mode,
            width_px=width_px,
            height_px=height_px,
            n_bytes=n_bytes,
            is_exif_rotated=orientation in _UPRIGHT,
        )


@contextmanager
def _guarded(source: Path | bytes, name: str | None) -> Iterator[tuple[Image.Image, int]]:
    """The image, not yet decoded, and its size in bytes; all that fails becomes one error."""
    name = name if name is not None else (str(source) if isinstance(source, Path) else "image")
    data = read_file(source, name) if isinstance(source, Path) else source
    _refuse_by_size(len(data), name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with opened(data, name, pixel_range=None, max_pixels=MAX_PIXELS) as image:
                _refuse_by_header(image, name)
                _refuse_by_scans(image, data, name)
                yield image, len(data)
    except CorruptImageError:
        raise
    except Image.DecompressionBombError:
        raise CorruptImageError(
            name, f"it declares more pixels than the {MAX_PIXELS:,} that are decoded"
        ) from None
    except UnidentifiedImageError:
        raise CorruptImageError(name, f"not an image of a known format ({FORMATS_TOLD})") from None
    except MemoryError:
        raise CorruptImageError(name, "there is not enough memory to decode it") from None
    except DECODER_ERRORS as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise CorruptImageError(name, f"damaged or truncated ({reason})") from err


def read_file(path: Path, name: str) -> bytes:
    """The bytes of a regular file of at most `MAX_FILE_BYTES`.

    Args:
        path: the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if it is not there, not regular, empty, too large or forbidden.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a named pipe would block for ever
            raise CorruptImageError(name, "not a regular file")
        _refuse_by_size(status.st_size, name)
        return path.read_bytes()
    except OSError as err:
        raise CorruptImageError(name, f"cannot be read ({err.strerror or err})") from err


def _refuse_by_size(n_bytes: int, name: str) -> None:
    if n_bytes == 0:
        raise CorruptImageError(name, "the file is empty (0 bytes)")
    if n_bytes > MAX_FILE_BYTES:
        raise CorruptImageError(
            name, f"the file has {n_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )


def _refuse_by_header(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width:,} x {image.height:,} pixels"
        raise CorruptImageError(name, f"it declares {size}; at most {MAX_PIXELS:,} are decoded")
    most = MAX_PIXELS_OF.get(image.format or "", MAX_PIXELS)
    if image.width * image.height > most:
        raise CorruptImageError(
            name, f"a {image.format} picture of that size takes too long: {most:,} pixels are read"
        )
    if image.mode in {"I", "F"} and image.width * image.height > _MAX_DEEP_PIXELS:
        raise CorruptImageError(
            name, f"32 bits a pixel; of such pictures at most {_MAX_DEEP_PIXELS:,} pixels are read"
        )
    # Not by the number of frames: to count them, Pillow walks through the whole file. MPO is how
    # phones store a JPEG with a depth map or a preview: its first frame is the photo. A HEIF file
    # may hold several pictures, too, and says which of them is the photo.
    if getattr(image, "is_animated", False) and image.format not in {"MPO", "HEIF"}:
        raise CorruptImageError(
            name, "it holds more than one frame; one label cannot speak for several pictures"
        )


def _refuse_by_scans(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse a progressive JPEG, also inside a TIFF, that goes over its pixels again and again.

    The marker cannot stand in entropy-coded data (ITU-T T.81, B.1.1.5); one in a preview counts.
    """
    is_jpeg = image.format in {"JPEG", "MPO"}
    if is_jpeg and _has_one_scan(data):
        return
    if is_jpeg or image.info.get("compression") in {"jpeg", "tiff_jpeg"}:
        # As `data.count`, which takes 5 ms for a phone's photo where this takes 1.
        codes = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(codes[1:] == _START_OF_SCAN[1])
        n_scans = int((codes[ends] == _START_OF_SCAN[0]).sum())
        if n_scans * image.width * image.height > _MAX_SCANNED_PIXELS:
            raise CorruptImageError(name, f"{n_scans:,} scans of so many pixels are no photograph")


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


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except DECODER_ERRORS:
        # The picture is whole and only its EXIF block is not: shown as stored, as browsers do.
        return 1
    return value if isinstance(value, int) else 1


def _upright_rgb(image: Image.Image, orientation: int) -> Image.Image:
    """A picture of its own, which either step makes: of a phone's photo one copy less."""
    is_plain = image.mode == "RGB" and "transparency" not in image.info
    return _upright(image if is_plain and orientation in _UPRIGHT else to_rgb(image), orientation)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image

"""Bytes of unknown origin -> an RGB picture -> the pixels that a model sees.

`open_image` is the only door for pictures (`glance` is the same door with a smaller picture behind
it), and `Preprocess` the only preprocessing: training, calibration, evaluation, the predictor and
the apps all come through here. Needs NumPy and Pillow alone, so that serving stays small.
"""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.errors import CorruptImageError

#: Decoders that may run. Short on purpose: each one is attack surface.
ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_FORMATS = ", ".join(ALLOWED_FORMATS)

#: 64 megapixels: above any phone's ordinary photo (50 MP), and 192 MB once decoded as RGB.
MAX_PIXELS = 64_000_000

#: A file larger than this is refused before it is read.
MAX_FILE_BYTES = 100_000_000

_BIT_DEPTHS = (8, 10, 12, 14, 16)

#: What makes a picture upright, by its EXIF orientation (tag 0x0112; EXIF 2.32, section 4.6.4).
_ORIENTATION_TAG = 0x0112
_TURN = Image.Transpose
_UPRIGHT = {
    **{2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM},
    **{5: _TURN.TRANSPOSE, 6: _TURN.ROTATE_270, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_90},
}

#: What Pillow's decoders are known to raise on malformed input.
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError),
    *(AttributeError, RuntimeError, struct.error, zlib.error),
)


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


def open_image(source: Path | bytes, *, name: str | None = None) -> OpenedImage:
    """The picture in a file or in bytes, decoded fully, upright and RGB.

    Palette and alpha are composited over white, CMYK is converted, and a 16-bit grey image is
    scaled by the smallest usual bit depth (8, 10, 12, 14, 16) that holds its largest value.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.

    Raises:
        CorruptImageError: if it is empty, too large, truncated, animated or of another format.
    """
    with _guarded(source, name) as (image, n_bytes):
        (width_px, height_px), mode = image.size, image.mode
        image.load()
        orientation = _orientation(image)
        return OpenedImage(
            rgb=_upright(_to_rgb(image), orientation),
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
        small = image if is_plain else _to_rgb(image)
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
            with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
                _refuse_by_header(image, name)
                yield image, len(data)
    except CorruptImageError:
        raise
    except Image.DecompressionBombError:
        raise CorruptImageError(
            name, f"it declares more pixels than the {MAX_PIXELS:,} that are decoded"
        ) from None
    except UnidentifiedImageError:
        raise CorruptImageError(name, f"not an image of a known format ({_FORMATS})") from None
    except MemoryError:
        raise CorruptImageError(name, "there is not enough memory to decode it") from None
    except _DECODER_ERRORS as err:
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
    n_frames = getattr(image, "n_frames", 1)
    # MPO is how phones store a JPEG with a depth map or a preview: its first frame is the photo.
    if n_frames > 1 and image.format != "MPO":
        raise CorruptImageError(
            name, f"it holds {n_frames} frames; one label cannot speak for several pictures"
        )


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        # The picture is whole and only its EXIF block is not: shown as stored, as browsers do.
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(image)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0).clip(0)
    peak = float(values.max()) if values.size else 0.0
    full_scale = next((2.0**bits - 1 for bits in _BIT_DEPTHS if peak < 2**bits), peak)
    grey = np.rint(values * (255.0 / full_scale)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a picture becomes the pixels that a model sees; travels inside the bundle.

    Attributes:
        resize_px: the shorter side after resizing (bilinear, antialiased, aspect kept).
        crop_px: side of the central square that is kept; at most ``resize_px``.
    """

    resize_px: int
    crop_px: int

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be."""
        if not 1 <= self.crop_px <= self.resize_px:
            raise ValueError(
                f"crop_px must be from 1 to resize_px ({self.resize_px}), got {self.crop_px}"
            )

    def __call__(self, image: Image.Image) -> NDArray[np.uint8]:
        """The model's input for one upright RGB picture.

        Args:
            image: mode RGB, as `open_image` gives it.

        Returns:
            (crop_px, crop_px, 3) RGB, in [0, 255].
        """
        resized = self.resize(image)
        left = (resized.width - self.crop_px) // 2
        top = (resized.height - self.crop_px) // 2
        cropped = resized.crop((left, top, left + self.crop_px, top + self.crop_px))
        return np.asarray(cropped, dtype=np.uint8)

    def resize(self, image: Image.Image) -> Image.Image:
        """The picture with its shorter side at ``resize_px``.

        Args:
            image: mode RGB.
        """
        width_px, height_px = image.size
        scale = self.resize_px / min(width_px, height_px)
        size = (
            max(self.resize_px, round(width_px * scale)),
            max(self.resize_px, round(height_px * scale)),
        )
        if size == image.size:
            return image
        return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=None)

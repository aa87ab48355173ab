"""Bytes of unknown origin -> an RGB picture -> the pixels that a model sees.

`open_image` is the only door for pictures, and `Preprocess` the only preprocessing: training,
calibration, evaluation, the predictor and the apps all come through here. Needs NumPy and Pillow
alone, so that serving stays small.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from pipelines.errors import CorruptImageError

#: Decoders that may run. Short on purpose: each one is attack surface.
ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

#: 64 megapixels: above any phone's ordinary photo (50 MP), and 192 MB once decoded as RGB.
MAX_PIXELS = 64_000_000

#: A file larger than this is refused before it is read.
MAX_FILE_BYTES = 100_000_000

_BIT_DEPTHS = (8, 10, 12, 14, 16)


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """A decoded picture and the facts of its file, before anything was normalised away.

    Attributes:
        rgb: the picture, upright, mode RGB.
        format: Pillow's name of the decoder, e.g. ``JPEG``.
        mode: Pillow's mode as stored, e.g. ``CMYK`` or ``I;16``.
        width_px: stored width, before the EXIF rotation.
        height_px: stored height, before the EXIF rotation.
        n_bytes: size of the file.
        is_exif_rotated: whether an EXIF orientation other than upright was applied.
    """

    rgb: Image.Image
    format: str
    mode: str
    width_px: int
    height_px: int
    n_bytes: int
    is_exif_rotated: bool


def open_image(source: Path | bytes, *, name: str | None = None) -> OpenedImage:
    """The picture in a file or in bytes, decoded fully, upright and RGB.

    Palette and alpha are composited over white, CMYK is converted, and a 16-bit grey image is
    scaled by the smallest usual bit depth (8, 10, 12, 14, 16) that holds its largest value.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.

    Raises:
        CorruptImageError: if it is empty, too large, of a format that is not allowed, truncated,
            animated, or declares more than `MAX_PIXELS`.
    """
    name = name if name is not None else (str(source) if isinstance(source, Path) else "image")
    data = _read(source, name) if isinstance(source, Path) else source
    if not data:
        raise CorruptImageError(name, "the file is empty (0 bytes)")
    if len(data) > MAX_FILE_BYTES:
        raise CorruptImageError(
            name, f"the file has {len(data):,} bytes; at most {MAX_FILE_BYTES:,} are read"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            with Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS) as image:
                return _decode(image, name, len(data))
    except CorruptImageError:
        raise
    except Image.DecompressionBombError:
        raise CorruptImageError(
            name, f"it declares more pixels than the {MAX_PIXELS:,} that are decoded"
        ) from None
    except UnidentifiedImageError:
        allowed = ", ".join(ALLOWED_FORMATS)
        raise CorruptImageError(name, f"not an image of a known format ({allowed})") from None
    except MemoryError:
        raise CorruptImageError(name, "there is not enough memory to decode it") from None
    # What Pillow's decoders are known to raise on malformed input.
    except (
        OSError,
        SyntaxError,
        ValueError,
        TypeError,
        IndexError,
        KeyError,
        EOFError,
        OverflowError,
        ZeroDivisionError,
        AttributeError,
        RuntimeError,
        struct.error,
        zlib.error,
    ) as err:
        reason = " ".join(str(err).split()) or type(err).__name__
        raise CorruptImageError(name, f"damaged or truncated ({reason})") from err


def _read(path: Path, name: str) -> bytes:
    try:
        n_bytes = path.stat().st_size
        if n_bytes > MAX_FILE_BYTES:
            raise CorruptImageError(
                name, f"the file has {n_bytes:,} bytes; at most {MAX_FILE_BYTES:,} are read"
            )
        return path.read_bytes()
    except OSError as err:
        raise CorruptImageError(name, f"cannot be read ({err.strerror or err})") from err


def _decode(image: Image.Image, name: str, n_bytes: int) -> OpenedImage:
    width_px, height_px = image.size
    if width_px * height_px > MAX_PIXELS:
        raise CorruptImageError(
            name,
            f"it declares {width_px:,} x {height_px:,} pixels; at most {MAX_PIXELS:,} are decoded",
        )
    n_frames = getattr(image, "n_frames", 1)
    # MPO is how phones store a JPEG with a depth map or a preview: its first frame is the photo.
    if n_frames > 1 and image.format != "MPO":
        raise CorruptImageError(
            name, f"it holds {n_frames} frames; one label cannot speak for several pictures"
        )
    image.load()
    mode, file_format = image.mode, image.format or "unknown"
    orientation = image.getexif().get(0x0112, 1)
    upright = ImageOps.exif_transpose(image)
    return OpenedImage(
        rgb=_to_rgb(upright),
        format=file_format,
        mode=mode,
        width_px=width_px,
        height_px=height_px,
        n_bytes=n_bytes,
        is_exif_rotated=orientation in range(2, 9),
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image.copy()
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(image)
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(canvas, rgba).convert("RGB")
    return image.convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    values = np.clip(values, 0, None)
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

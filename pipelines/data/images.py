"""Bytes of unknown origin -> an RGB picture.

`open_image` is the only door for pictures (`glance` is the same door with a smaller picture behind
it): training, calibration, evaluation, the predictor and the apps all come through here, and go on
to `preprocess`. Modes of 8 bits a channel become RGB without a second copy of a large picture;
deeper ones by `pipelines.data.pixel_range`. Needs NumPy and Pillow alone, so that serving stays
small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from pipelines.data.bounds import fitting_scale, refuse_by_pixels
from pipelines.data.formats import DECODER_ERRORS
from pipelines.data.image_bytes import MAX_FILE_BYTES as MAX_FILE_BYTES
from pipelines.data.image_bytes import Undecoded, undecoded
from pipelines.data.image_bytes import read_file as read_file
from pipelines.data.pixel_range import AS_IT_COMES, Levels, Reading, as_rgb

#: Rows are converted so many pixels at a time where a copy of all would need a gigabyte.
_STRIP_PIXELS = 4_000_000


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture in RGB, transparency over white.

    Args:
        image: of any mode of 8 bits a channel.

    Returns:
        A new picture of the same size, in mode RGB.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        return _by_strips(image, _over_white)
    return image.convert("RGB")


def _by_strips(image: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An RGB picture, made of strips of rows so that memory stays small."""
    n_rows = max(1, _STRIP_PIXELS // image.width)
    if n_rows >= image.height:
        return to_rgb(image)
    rgb = Image.new("RGB", image.size)
    for top in range(0, image.height, n_rows):
        strip = image.crop((0, top, image.width, min(top + n_rows, image.height)))
        # A crop forgets which colour is clear.
        strip.info = image.info
        rgb.paste(to_rgb(strip), (0, top))
    return rgb


def _over_white(image: Image.Image) -> Image.Image:
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


# -- images ---------------------------------------------------------------------------------------
#: The sides of a JPEG may be divided by these while it is decoded.
_SCALES = (8, 4, 2, 1)

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
        outside: share of the pixels whose stored values lie outside the data set's range; 0 for
            pictures of 8 bits a channel.
    """

    format: str
    mode: str
    width_px: int
    height_px: int
    n_bytes: int
    is_exif_rotated: bool
    outside: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedImage(_Facts):
    """A decoded picture, upright and of mode RGB, and the facts of its file."""

    rgb: Image.Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance(_Facts):
    """A small copy of a picture, upright and of mode L, and the facts of its file."""

    grey: Image.Image


def open_image(
    source: Path | bytes,
    *,
    name: str | None = None,
    least_side_px: int | None = None,
    reading: Reading = AS_IT_COMES,
) -> OpenedImage:
    """The picture in a file or in bytes, decoded fully, upright and RGB.

    Palette and alpha are composited over white, CMYK is converted, and more than 8 bits a channel
    are scaled by the range of the data set. A JPEG of more pixels than `bounds.max_pixels` is
    decoded at 1/2, 1/4 or 1/8 of its size.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.
        least_side_px: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, as `glance` does, so
            far as neither side gets smaller than this; null decodes every pixel.
        reading: of the data set, or of the model.

    Raises:
        CorruptImageError: if it is empty, too large, truncated, animated, too long for its width,
            of another format, or deep where no range is stated.
    """
    with undecoded(source, name, reading) as opened:
        image = opened.image
        width_px, height_px = image.size
        _draft(opened, least_side_px)
        rgb, outside = _rgb(opened, reading)
        orientation = _orientation(image)
        return OpenedImage(
            rgb=_upright(rgb, orientation),
            format=image.format or "unknown",
            mode=opened.mode,
            width_px=width_px,
            height_px=height_px,
            n_bytes=opened.n_bytes,
            is_exif_rotated=orientation in _UPRIGHT,
            outside=outside,
        )


def glance(
    source: Path | bytes,
    *,
    side_px: int,
    name: str | None = None,
    reading: Reading = AS_IT_COMES,
) -> Glance:
    """A small grey copy of a picture, for a fraction of the work of `open_image`.

    It reads the whole file and refuses what `open_image` refuses: of a JPEG the entropy-coded
    stream is read to its end, and only the arithmetic is done at a scale of 1/2, 1/4 or 1/8.

    Args:
        source: a path, or the bytes of a file.
        side_px: neither side of the copy is smaller than this, unless the stored one is.
        name: what to call it in messages; the path by default.
        reading: of the data set.

    Raises:
        CorruptImageError: as `open_image`.
    """
    with undecoded(source, name, reading) as opened:
        image = opened.image
        width_px, height_px = image.size
        image.draft("L", (side_px, side_px))
        small, outside = _rgb(opened, reading, keeps_grey=True)
        orientation = _orientation(image)
        small = small.reduce(max(1, min(small.size) // side_px))
        return Glance(
            grey=_upright(small.convert("L"), orientation),
            format=image.format or "unknown",
            mode=opened.mode,
            width_px=width_px,
            height_px=height_px,
            n_bytes=opened.n_bytes,
            is_exif_rotated=orientation in _UPRIGHT,
            outside=outside,
        )


def is_deep(source: Path | bytes, *, name: str | None = None) -> bool:
    """Whether a picture has more than 8 bits a channel; decodes nothing.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.

    Raises:
        CorruptImageError: as `open_image`, of what the header tells.
    """
    with undecoded(source, name, AS_IT_COMES) as opened:
        return opened.is_deep


def levels_of(source: Path | bytes, *, name: str | None = None) -> Levels | None:
    """The stored values of a picture with more than 8 bits a channel; None of any other.

    Args:
        source: a path, or the bytes of a file.
        name: what to call it in messages; the path by default.

    Raises:
        CorruptImageError: as `open_image`, but for the range and, of any other picture, the pixels.
    """
    with undecoded(source, name, AS_IT_COMES) as opened:
        if not opened.is_deep:
            return None
        refuse_by_pixels(opened.image, opened.name, is_deep=True)
        return opened.levels()


def _draft(opened: Undecoded, least_side_px: int | None) -> None:
    """Let a JPEG be decoded at a fraction of its size, where that is asked for or must be."""
    image = opened.image
    width_px, height_px = image.size
    wanted = 1
    if least_side_px is not None:
        wanted = min(width_px // least_side_px, height_px // least_side_px)
        wanted = next((scale for scale in _SCALES if wanted >= scale), 1)
    needed = fitting_scale(image, is_deep=opened.is_deep)
    if needed > wanted:
        image.draft(None, (max(1, width_px // needed), max(1, height_px // needed)))
    elif least_side_px is not None:
        image.draft(None, (least_side_px, least_side_px))


def _rgb(
    opened: Undecoded, reading: Reading, *, keeps_grey: bool = False
) -> tuple[Image.Image, float]:
    """The picture as it lies in the file, in RGB (or in L), and the share that is outside."""
    image = opened.image
    refuse_by_pixels(image, opened.name, is_deep=opened.is_deep)
    if opened.is_deep:
        return as_rgb(opened.levels(), reading.range, opened.name)
    image.load()
    is_plain = "transparency" not in image.info
    if is_plain and (image.mode == "RGB" or (keeps_grey and image.mode == "L")):
        # Not copied: of a large picture, that would be a quarter of a gigabyte more.
        return image, 0.0
    return to_rgb(image), 0.0


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except DECODER_ERRORS:
        # The picture is whole and only its EXIF block is not: shown as stored, as browsers do.
        return 1
    return value if isinstance(value, int) else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image

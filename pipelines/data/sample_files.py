"""A painted picture -> the bytes of a file, sound or with a fault that real folders hold.

Called by `pipelines.data.samples`, which says which file gets which form.
"""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
from PIL import Image

#: How a painted picture becomes a file.
Form = Literal[
    "jpeg", "png", "wrong_suffix", "exif_rotated", "cmyk", "grey", "near_duplicate", "truncated"
]
#: Forms that replace an ordinary file; the picture in it is sound and must be accepted.
IN_PLACE: tuple[Form, ...] = ("wrong_suffix", "exif_rotated", "cmyk", "grey")
#: A picture loses at most this share of one side, so that not every file is a square.
_MAX_CROP = 0.15
_MAX_ENLARGE = 0.1
#: EXIF tag of the orientation, and its value for "turn clockwise to show it".
_ORIENTATION, _TURN_CLOCKWISE = 0x0112, 6


def suffix_of(form: Form) -> str:
    """The suffix of the file's name, with its dot.

    Args:
        form: see `Form`.
    """
    return ".png" if form in {"png", "grey"} else ".jpg"


def frame(picture: Image.Image, rng: np.random.Generator, side_px: int) -> Image.Image:
    """The picture with a little cut off one pair of sides, enlarged again.

    Args:
        picture: a square.
        rng: draws how much.
        side_px: shorter side of the result, at least.
    """
    width_px, height_px = picture.size
    keep = 1 - rng.uniform(0, _MAX_CROP)
    offset = rng.uniform(0, 1 - keep)
    if rng.random() < 0.5:
        box = (offset * width_px, 0.0, (offset + keep) * width_px, float(height_px))
    else:
        box = (0.0, offset * height_px, float(width_px), (offset + keep) * height_px)
    shorter = side_px * rng.uniform(1, 1 + _MAX_ENLARGE)
    scale = shorter / min(box[2] - box[0], box[3] - box[1])
    size = (
        max(side_px, round((box[2] - box[0]) * scale)),
        max(side_px, round((box[3] - box[1]) * scale)),
    )
    return picture.resize(size, Image.Resampling.BICUBIC, box=box)


def encode(picture: Image.Image, form: Form, *, quality: int) -> bytes:
    """A picture as the bytes of a file.

    Args:
        picture: mode RGB.
        form: see `Form`.
        quality: of a JPEG, 1 to 95.
    """
    if form in {"png", "wrong_suffix"}:
        return _bytes(picture, "PNG", compress_level=3)
    if form == "grey":
        # Not of 16 bits: such files need a range in the card, and the cards describe real sets.
        return _bytes(picture.convert("L"), "PNG", compress_level=3)
    if form == "cmyk":
        return _bytes(picture.convert("CMYK"), "JPEG", quality=quality)
    if form == "exif_rotated":
        exif = Image.Exif()
        exif[_ORIENTATION] = _TURN_CLOCKWISE
        turned = picture.transpose(Image.Transpose.ROTATE_90)
        return _bytes(turned, "JPEG", quality=quality, exif=exif)
    if form == "near_duplicate":
        size = (round(picture.width * 0.92), round(picture.height * 0.92))
        return _bytes(picture.resize(size, Image.Resampling.BICUBIC), "JPEG", quality=85)
    data = _bytes(picture, "JPEG", quality=quality)
    return data[: len(data) * 3 // 5] if form == "truncated" else data


def _bytes(picture: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()

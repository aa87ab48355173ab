"""From every mode that a stored picture may have to RGB, without a second copy of a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Rows are converted so many pixels at a time where a copy of all would need a gigabyte.
_STRIP_PIXELS = 4_000_000

_BIT_DEPTHS = (8, 10, 12, 14, 16)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture in RGB: transparency over white, deep grey scaled by its bit depth.

    Args:
        image: of any mode that an allowed format can have.

    Returns:
        A new picture of the same size, in mode RGB.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_to_rgb(image)
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


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    peak = 0.0
    n_rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, n_rows):
        box = (0, top, image.width, min(top + n_rows, image.height))
        peak = max(peak, float(_grey_values(image.crop(box)).max(initial=0)))
    full_scale = next((2.0**bits - 1 for bits in _BIT_DEPTHS if peak < 2**bits), peak)
    factor = 255.0 / full_scale

    def to_rgb(strip: Image.Image) -> Image.Image:
        grey = _grey_values(strip) * factor
        return Image.fromarray(np.rint(grey, out=grey).astype(np.uint8)).convert("RGB")

    return _by_strips(image, to_rgb)


def _grey_values(image: Image.Image) -> NDArray[np.float64] | NDArray[np.integer[Any]]:
    """Values from 0 up; what is no number, or infinite, is 0."""
    values = np.asarray(image)
    if values.dtype.kind != "f":
        return values if values.dtype.kind == "u" else values.clip(0)
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0).clip(0)

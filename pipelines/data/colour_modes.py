"""From every mode of 8 bits a channel to RGB, without a second copy of a large one.

More than 8 bits a channel: see `pipelines.data.deep`.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

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

"""A figure cut out: painted upright by itself, then laid on its background as a shot sees it.

For sample painters whose figure stays the same from shot to shot (a leaf, a fish). Works on
Pillow's bytes, where a hundred small parts cost little; `canvas` does light and camera after it.
Only painters call this.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pipelines.samples import canvas

RGB8 = tuple[int, int, int]
#: (n, 2), x and y in units of half the picture's side, as in `canvas`.
Points = NDArray[np.float64]
Numbers = NDArray[np.float64]


def to_px(points: Points, side_px: int) -> list[tuple[float, float]]:
    """Points as Pillow draws them."""
    return [(x, y) for x, y in ((points + 1) * (side_px / 2)).tolist()]


def line_px(width: float, side_px: int) -> int:
    """A line's width in px, at least 1, from one in half sides."""
    return max(1, round(width * side_px / 2))


def box(centre: Numbers, radius: float, side_px: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a circle, as Pillow draws it."""
    x, y = ((centre + 1) * (side_px / 2)).tolist()
    radius_px = radius * side_px / 2
    return x - radius_px, y - radius_px, x + radius_px, y + radius_px


def polygons(side_px: int, outlines: Iterable[Points], opacity: int = 255) -> Image.Image:
    """A mask with all outlines filled, mode L, in an opacity from 0 to 255."""
    mask = Image.new("L", (side_px, side_px))
    draw = ImageDraw.Draw(mask)
    for outline in outlines:
        draw.polygon(to_px(outline, side_px), fill=opacity)
    return mask


def soften(mask: Image.Image, reach: float) -> Image.Image:
    """A mask, blurred by a share of its side; done at half the size, where blur is cheap."""
    small = mask.reduce(2)
    small = small.filter(ImageFilter.GaussianBlur(reach * small.width))
    return small.resize(mask.size, Image.Resampling.BILINEAR)


def smooth(grid: Numbers, places: Numbers, values: Numbers, n_window: int) -> Numbers:
    """Values between given places, with corners rounded.

    ``grid``: (n,) where values are wanted; ``places``: (m,) rising; ``values``: (m,) there;
    ``n_window``: odd number of grid points over which a corner is rounded.
    """
    window = np.hanning(n_window + 2)[1:-1]
    dense = np.pad(np.interp(grid, places, values), n_window // 2, mode="edge")
    return np.convolve(dense, window / window.sum(), mode="valid")


def mix(one: RGB8, other: RGB8, share: float) -> RGB8:
    """A colour between two; ``share`` is that of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def shade(colour: RGB8, gain: float) -> RGB8:
    """A colour, darker or lighter by a factor; what passes 255 is cut."""
    red, green, blue = (min(255, round(value * gain)) for value in colour)
    return red, green, blue


def blend(top: RGB8, below: RGB8, opacity: canvas.Mask) -> Image.Image:
    """One colour over another, mode RGB, by an opacity that is clipped to [0, 1]."""
    size = opacity.shape
    mask = Image.fromarray(np.rint(np.clip(opacity, 0, 1) * 255).astype(np.uint8))
    return Image.composite(Image.new("RGB", size, top), Image.new("RGB", size, below), mask)


def placed(
    figure: Image.Image,
    *,
    turn_deg: float,
    zoom: float,
    shift: canvas.Point,
    stretch: tuple[float, float] = (1.0, 1.0),
    lean: float = 0.0,
) -> Image.Image:
    """The figure as a shot sees it.

    ``turn_deg``: clockwise turn in degrees; ``zoom``: > 1 is nearer; ``shift``: in units of half
    the side; ``stretch``: factors along the figure's own x and y; a negative one mirrors it;
    ``lean``: how far x moves per unit of y.
    """
    side_px, angle = figure.width, np.deg2rad(turn_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # Pillow wants the way back: from a pixel of the picture to one of the figure.
    matrix = np.diag(1 / np.array(stretch)) @ np.array([[1.0, lean], [0.0, 1.0]]) @ turn / zoom
    middle = np.full(2, side_px / 2)
    offset = middle - matrix @ (middle * (1 + np.array(shift)))
    back = (*matrix[0], offset[0], *matrix[1], offset[1])
    return figure.transform(figure.size, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)


def photograph(
    picture: Image.Image, shot: np.random.Generator, blur_px: tuple[float, float]
) -> Image.Image:
    """The scene as a camera gives it: another light, blur and noise.

    ``shot``: draws the light, the blur and the noise; ``blur_px``: smallest and largest standard
    deviation.

    Returns:
        Mode RGB.
    """
    pixels = np.asarray(picture, dtype=np.float32) / np.float32(255)
    lit = canvas.light(pixels, shot, gain=0.25, slope=0.4)
    noise = shot.uniform(0.008, 0.024)
    return canvas.finish(lit, shot, noise=noise, blur_px=shot.uniform(*blur_px))

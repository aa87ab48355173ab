"""A few brushes for the sample painters: soft shapes, textures, light, sensor noise.

A picture is a float array (side_px, side_px, 3) in [0, 1]; a mask is (side_px, side_px) in [0, 1].
Every brush is pure: what varies comes in as a random generator. Only task modules call this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Picture = NDArray[np.float32]
Mask = NDArray[np.float32]
Colour = tuple[float, float, float]
#: A place in units of half the picture's side, from (-1, -1) top left to (1, 1) bottom right: (x, y).
Point = tuple[float, float]


def axes(side_px: int) -> tuple[Mask, Mask]:
    """Coordinates of each pixel's centre.

    Args:
        side_px: side of the picture.

    Returns:
        x and y, each (side_px, side_px) in (-1, 1).
    """
    line = ((np.arange(side_px, dtype=np.float32) + 0.5) / side_px) * 2 - 1
    x, y = np.meshgrid(line, line)
    return x, y


def fill(side_px: int, colour: Colour) -> Picture:
    """A picture of one colour.

    Args:
        side_px: side of the picture.
        colour: RGB in [0, 1].
    """
    return np.tile(np.asarray(colour, dtype=np.float32), (side_px, side_px, 1))


def texture(
    rng: np.random.Generator, side_px: int, cells: float, *, octaves: int = 3, stretch: float = 1.0
) -> Mask:
    """Smooth value noise, as of soil, skin or cloth.

    Args:
        rng: draws the noise.
        side_px: side of the picture.
        cells: patches along the picture's width in the coarsest octave.
        octaves: each has twice the patches and half the weight of the one before.
        stretch: > 1 draws the patches out along x.

    Returns:
        (side_px, side_px), from 0 to 1.
    """
    total = np.zeros((side_px, side_px), dtype=np.float32)
    for octave in range(octaves):
        rows = max(2, round(cells * 2**octave))
        columns = max(2, round(cells * 2**octave / stretch))
        coarse = Image.fromarray(rng.random((rows, columns), dtype=np.float32))
        fine = coarse.resize((side_px, side_px), Image.Resampling.BICUBIC)
        total += np.asarray(fine, dtype=np.float32) / 2**octave
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def ellipse(
    side_px: int,
    centre: Point,
    radii: tuple[float, float],
    *,
    turn_deg: float = 0.0,
    softness: float = 0.03,
) -> Mask:
    """An ellipse with a soft rim.

    Args:
        side_px: side of the picture.
        centre: of the ellipse.
        radii: along x and y before the turn, in units of half the side.
        turn_deg: clockwise turn in degrees.
        softness: width of the rim, as a share of the radius.
    """
    x, y = axes(side_px)
    angle = np.deg2rad(turn_deg)
    dx, dy = x - centre[0], y - centre[1]
    along = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
    across = (-dx * np.sin(angle) + dy * np.cos(angle)) / radii[1]
    distance = np.sqrt(along**2 + across**2)
    mask: Mask = np.clip((1 - distance) / max(softness, 1e-3) + 0.5, 0, 1).astype(np.float32)
    return mask


def polygon(side_px: int, points: Sequence[Point], *, blur_px: float = 0.8) -> Mask:
    """A filled polygon with a soft edge.

    Args:
        side_px: side of the picture.
        points: its corners, in order.
        blur_px: standard deviation of the edge.
    """
    canvas = Image.new("L", (side_px, side_px))
    ImageDraw.Draw(canvas).polygon(_to_px(side_px, points), fill=255)
    return _soften(canvas, blur_px)


def stroke(side_px: int, points: Sequence[Point], width: float, *, blur_px: float = 0.8) -> Mask:
    """A line through points.

    Args:
        side_px: side of the picture.
        points: at least two.
        width: in units of half the side.
        blur_px: standard deviation of the edge.
    """
    canvas = Image.new("L", (side_px, side_px))
    width_px = max(1, round(width * side_px / 2))
    ImageDraw.Draw(canvas).line(_to_px(side_px, points), fill=255, width=width_px, joint="curve")
    return _soften(canvas, blur_px)


def _to_px(side_px: int, points: Sequence[Point]) -> list[tuple[float, float]]:
    return [((x + 1) / 2 * side_px, (y + 1) / 2 * side_px) for x, y in points]


def _soften(canvas: Image.Image, blur_px: float) -> Mask:
    if blur_px > 0:
        canvas = canvas.filter(ImageFilter.GaussianBlur(blur_px))
    return np.asarray(canvas, dtype=np.float32) / 255


def blur(mask: Mask, blur_px: float) -> Mask:
    """A mask, softened.

    Args:
        mask: (side_px, side_px) in [0, 1].
        blur_px: standard deviation in px.
    """
    return _soften(Image.fromarray(np.rint(mask * 255).astype(np.uint8)), blur_px)


def paint(picture: Picture, mask: Mask, colour: Colour | Picture) -> Picture:
    """The picture with a colour laid over it where the mask is.

    Args:
        picture: below.
        mask: opacity in [0, 1].
        colour: RGB in [0, 1], or a picture.
    """
    top = np.asarray(colour, dtype=np.float32)
    opacity = mask[..., np.newaxis]
    mixed: Picture = picture * (1 - opacity) + top * opacity
    return mixed


def move(
    picture: Picture, *, turn_deg: float = 0.0, zoom: float = 1.0, shift: Point = (0.0, 0.0)
) -> Picture:
    """The picture turned, zoomed and shifted about its centre; the rim is mirrored inwards.

    Args:
        picture: what to move.
        turn_deg: clockwise turn in degrees.
        zoom: > 1 is nearer.
        shift: in units of half the side.
    """
    side_px = picture.shape[0]
    margin = side_px // 2
    padded = np.pad(picture, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    image = Image.fromarray(np.rint(np.clip(padded, 0, 1) * 255).astype(np.uint8))
    image = image.rotate(-turn_deg, Image.Resampling.BILINEAR)
    half = side_px / 2 / zoom
    x = image.width / 2 - shift[0] * half
    y = image.height / 2 - shift[1] * half
    box = (x - half, y - half, x + half, y + half)
    moved = image.resize((side_px, side_px), Image.Resampling.BILINEAR, box=box)
    return np.asarray(moved, dtype=np.float32) / 255


def light(
    picture: Picture,
    rng: np.random.Generator,
    *,
    gain: float = 0.2,
    slope: float = 0.2,
    tint: float = 0.05,
    vignette: float = 0.15,
) -> Picture:
    """The picture under another light: brightness, a slope across it, a tint, dark corners.

    Args:
        picture: what is lit.
        rng: draws the light.
        gain: largest relative change of brightness.
        slope: largest relative change from one side to the other.
        tint: largest relative change of one colour.
        vignette: largest relative darkening of the corners.
    """
    x, y = axes(picture.shape[0])
    angle = rng.uniform(0, 2 * np.pi)
    field = 1 + rng.uniform(-gain, gain)
    field = field + rng.uniform(0, slope) / 2 * (x * np.cos(angle) + y * np.sin(angle))
    field = field - rng.uniform(0, vignette) / 2 * (x**2 + y**2)
    colour = 1 + rng.uniform(-tint, tint, size=3)
    lit: Picture = np.clip(picture * field[..., np.newaxis] * colour, 0, 1).astype(np.float32)
    return lit


def finish(
    picture: Picture, rng: np.random.Generator, *, noise: float = 0.015, blur_px: float = 0.4
) -> Image.Image:
    """The picture as a camera gives it: a little blur, sensor noise, 8 bits.

    Args:
        picture: in [0, 1].
        rng: draws the noise.
        noise: standard deviation.
        blur_px: standard deviation in px.

    Returns:
        Mode RGB.
    """
    image = Image.fromarray(np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8))
    if blur_px > 0:
        image = image.filter(ImageFilter.GaussianBlur(blur_px))
    values = np.asarray(image, dtype=np.float32) / 255
    values = values + rng.normal(0, noise, size=values.shape).astype(np.float32)
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))

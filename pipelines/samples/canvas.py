"""The sample painters' box: colour, light and camera, and the shapes of `pipelines.samples.shapes`.

A picture is a float array (side_px, side_px, 3) in [0, 1]; a mask is (side_px, side_px) in [0, 1].
Every brush is pure: what varies comes in as a random generator. Only task modules call this.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.samples.shapes import (
    Mask,
    Point,
    axes,
    blob,
    blur,
    cells,
    ellipse,
    honeycomb,
    polygon,
    rounded,
    soft_filter,
    spots,
    stroke,
    strokes,
)

__all__ = [
    "Colour",
    "Mask",
    "Picture",
    "Point",
    "axes",
    "blob",
    "blur",
    "cells",
    "ellipse",
    "expose",
    "fill",
    "finish",
    "honeycomb",
    "light",
    "move",
    "paint",
    "polygon",
    "rounded",
    "spots",
    "stroke",
    "strokes",
    "texture",
]

Picture = NDArray[np.float32]
Colour = tuple[float, float, float]


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


def paint(picture: Picture, mask: Mask, colour: Colour | Picture) -> Picture:
    """The picture with a colour laid over it where the mask is.

    Args:
        picture: below.
        mask: opacity in [0, 1].
        colour: RGB in [0, 1], or a picture.
    """
    rows, columns = _touched(mask)
    painted: Picture = np.array(picture, dtype=np.float32)
    below = painted[rows, columns]
    top = np.asarray(colour, dtype=np.float32)
    top = top[rows, columns] if top.ndim == 3 else top
    painted[rows, columns] = below + (top - below) * mask[rows, columns, np.newaxis]
    return painted


def _touched(mask: Mask) -> tuple[slice, slice]:
    # Most masks are small: only the window in which they are not 0 needs work.
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


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
    padding = ((margin, margin), (margin, margin), (0, 0))
    image = Image.fromarray(np.pad(_to_bytes(picture), padding, mode="reflect"))
    angle = math.radians(turn_deg)
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    middle = side_px / 2
    # Where the middle of the moved picture lies in the padded one: the shift comes after the turn.
    x = -middle * (1 + shift[0])
    y = -middle * (1 + shift[1])
    matrix = (
        cosine,
        sine,
        margin + middle + x * cosine + y * sine,
        -sine,
        cosine,
        margin + middle - x * sine + y * cosine,
    )
    moved = image.transform(
        (side_px, side_px), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )
    return np.asarray(moved, dtype=np.float32) / np.float32(255)


def _to_bytes(picture: Picture) -> NDArray[np.uint8]:
    levels: Picture = picture * np.float32(255)
    np.clip(levels, 0, 255, out=levels)
    np.rint(levels, out=levels)
    return levels.astype(np.uint8)


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
    angle = rng.uniform(0, 2 * math.pi)
    field = x * 0 + (1 + rng.uniform(-gain, gain))
    tilt = rng.uniform(0, slope) / 2
    field += x * (tilt * math.cos(angle)) + y * (tilt * math.sin(angle))
    field -= (x * x + y * y) * (rng.uniform(0, vignette) / 2)
    colour = (1 + rng.uniform(-tint, tint, size=3)).astype(np.float32)
    lit: Picture = np.clip(picture * field[..., np.newaxis] * colour, 0, 1)
    return lit


def expose(picture: Picture, mean: float | Colour) -> Picture:
    """The picture with a given mean, so that brightness or colour as a whole tells nothing.

    Args:
        picture: what is exposed; not all black.
        mean: wanted mean over all pixels, of all channels together or of each, in (0, 1), before
            clipping.
    """
    if isinstance(mean, tuple):
        gain = np.asarray(mean, dtype=np.float32) / np.maximum(picture.mean(axis=(0, 1)), 1e-6)
    else:
        gain = np.asarray(mean / max(float(picture.mean()), 1e-6), dtype=np.float32)
    exposed: Picture = np.clip(picture * gain, 0, 1).astype(np.float32, copy=False)
    return exposed


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
    image = Image.fromarray(_to_bytes(picture))
    if blur_px > 0:
        image = image.filter(soft_filter(blur_px))
    values = rng.standard_normal((image.height, image.width, 3), dtype=np.float32)
    values *= np.float32(noise)
    values += np.asarray(image, dtype=np.float32) / np.float32(255)
    return Image.fromarray(_to_bytes(values))

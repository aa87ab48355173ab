"""The sample painters' box: shapes, colour, light and camera.

A picture is a float array (side_px, side_px, 3) in [0, 1]; a mask is (side_px, side_px) in [0, 1].
Every brush is pure: what varies comes in as a random generator. Lengths are in units of half the
picture's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Picture = NDArray[np.float32]
Mask = NDArray[np.float32]
#: RGB in [0, 1].
Colour = tuple[float, float, float]
#: A place (x, y) in units of half the picture's side: (-1, -1) is top left, (1, 1) bottom right.
Point = tuple[float, float]


# -- shapes ---------------------------------------------------------------------------------------
def axes(side_px: int) -> tuple[Mask, Mask]:
    """Coordinates of each pixel's centre.

    Returns:
        x and y, each (side_px, side_px) in (-1, 1).
    """
    line = ((np.arange(side_px, dtype=np.float32) + 0.5) / side_px) * 2 - 1
    x, y = np.meshgrid(line, line)
    return x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)


def ellipse(
    side_px: int,
    centre: Point,
    radii: tuple[float, float],
    *,
    turn_deg: float = 0.0,
    softness: float = 0.03,
) -> Mask:
    """An ellipse with a soft rim.

    ``radii``: along x and y before the turn, in units of half the side; ``turn_deg``: clockwise
    turn in degrees; ``softness``: width of the rim, as a share of the radius.
    """
    mask = np.zeros((side_px, side_px), dtype=np.float32)
    rows, columns, values = _disc(side_px, centre, radii, turn_deg, softness)
    mask[rows, columns] = values
    return mask


def spots(
    side_px: int, centres: Sequence[Point], radii: Sequence[float], *, softness: float = 0.4
) -> Mask:
    """Many discs in one mask, as of follicles, dots or pores.

    ``centres``: one a disc; ``radii``: one a disc, in units of half the side; ``softness``: width
    of the rim, as a share of the radius.
    """
    mask = np.zeros((side_px, side_px), dtype=np.float32)
    for centre, radius in zip(centres, radii, strict=True):
        rows, columns, values = _disc(side_px, centre, (radius, radius), 0.0, softness)
        mask[rows, columns] = np.maximum(mask[rows, columns], values)
    return mask


def _disc(
    side_px: int, centre: Point, radii: tuple[float, float], turn_deg: float, softness: float
) -> tuple[slice, slice, Mask]:
    # Only the window that the shape touches is worked out: most shapes are small.
    reach = max(abs(radius) for radius in radii) * (1 + softness)
    rows, columns = _window(side_px, centre[1], reach), _window(side_px, centre[0], reach)
    line = ((np.arange(side_px, dtype=np.float32) + 0.5) / side_px) * 2 - 1
    dx = (line[columns] - centre[0]).astype(np.float32)[np.newaxis, :]
    dy = (line[rows] - centre[1]).astype(np.float32)[:, np.newaxis]
    angle = math.radians(turn_deg)
    cosine, sine = math.cos(angle), math.sin(angle)
    along = dx * (cosine / radii[0]) + dy * (sine / radii[0])
    across = dy * (cosine / radii[1]) - dx * (sine / radii[1])
    distance = np.sqrt(along * along + across * across)
    values = np.clip((1 - distance) / max(softness, 1e-3) + 0.5, 0, 1)
    return rows, columns, values.astype(np.float32, copy=False)


def _window(side_px: int, centre: float, reach: float) -> slice:
    first = math.floor((centre - reach + 1) / 2 * side_px) - 1
    last = math.ceil((centre + reach + 1) / 2 * side_px) + 1
    return slice(min(max(first, 0), side_px), min(max(last, 0), side_px))


def cells(side_px: int, centres: Sequence[Point], gap: float) -> Mask:
    """Patches around points, kept apart by straight seams: 1 in a patch, 0 on a seam.

    ``centres``: at least two; ``gap``: width of the seams, in units of half the side.
    """
    x, y = axes(side_px)
    nearest = np.full((side_px, side_px), 9, dtype=np.float32)
    second = nearest.copy()
    for centre_x, centre_y in centres:
        dx, dy = x - np.float32(centre_x), y - np.float32(centre_y)
        distance = np.sqrt(dx * dx + dy * dy)
        second = np.minimum(second, np.maximum(nearest, distance))
        nearest = np.minimum(nearest, distance)
    patches: Mask = np.clip((second - nearest) / np.float32(max(gap, 1e-3)) - 0.5, 0, 1)
    return patches


def honeycomb(rng: np.random.Generator, side_px: int, cell: float, *, warp: float = 0.03) -> Mask:
    """Lines of a bent honeycomb over the middle of the picture.

    ``cell``: length of an edge, in units of half the side; ``warp``: how far a corner moves, in
    units of half the side.
    """
    step = cell * math.sqrt(3)
    phases = rng.uniform(0, 2 * math.pi, size=4).tolist()
    corners = [
        (cell * math.sin(k * math.pi / 3), cell * math.cos(k * math.pi / 3)) for k in range(4)
    ]
    lines = []
    for row in range(-round(0.5 / cell), round(0.5 / cell) + 1):
        for column in range(-round(0.75 / step), round(0.75 / step) + 1):
            x, y = (column + 0.5 * (row % 2)) * step, row * 1.5 * cell
            lines.append([_bend(x + dx, y + dy, warp, phases) for dx, dy in corners])
    return strokes(side_px, lines, cell * 0.34, blur_px=side_px / 250)


def _bend(x: float, y: float, warp: float, phases: Sequence[float]) -> Point:
    east = math.sin(5 * y + phases[0]) + 0.6 * math.sin(11 * x + 7 * y + phases[1])
    south = math.sin(5 * x + phases[2]) + 0.6 * math.sin(11 * y - 7 * x + phases[3])
    return x + warp * east, y + warp * south


def polygon(side_px: int, points: Sequence[Point], *, blur_px: float = 0.8) -> Mask:
    """A filled polygon with a soft edge, of a standard deviation of ``blur_px``."""
    canvas = Image.new("L", (side_px, side_px))
    ImageDraw.Draw(canvas).polygon(_to_px(side_px, points), fill=255)
    return soften(canvas, blur_px)


def blob(
    rng: np.random.Generator,
    side_px: int,
    centre: Point,
    radius: float,
    *,
    roughness: float = 0.15,
    blur_px: float = 0.8,
) -> Mask:
    """A closed shape with an uneven outline.

    ``radius``: mean radius, in units of half the side; ``roughness``: size of the bulges, as a
    share of the radius; 0 is a circle; ``blur_px``: standard deviation of the edge.
    """
    waves = [(n, rng.normal(0, roughness / n), rng.uniform(0, 2 * math.pi)) for n in range(2, 8)]
    points = []
    for step in range(72):
        angle = step * 2 * math.pi / 72
        reach = 1 + sum(size * math.cos(n * angle + phase) for n, size, phase in waves)
        reach = radius * max(reach, 0.2)
        points.append((centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)))
    return polygon(side_px, points, blur_px=blur_px)


def strokes(
    side_px: int, lines: Sequence[Sequence[Point]], width: float, *, blur_px: float = 0.8
) -> Mask:
    """Many lines in one mask, as of hair, vessels or whiskers.

    ``lines``: each of at least two points; ``width``: in units of half the side; ``blur_px``:
    standard deviation of the edge.
    """
    canvas = Image.new("L", (side_px, side_px))
    draw = ImageDraw.Draw(canvas)
    width_px = max(1, round(width * side_px / 2))
    for points in lines:
        draw.line(_to_px(side_px, points), fill=255, width=width_px, joint="curve")
    return soften(canvas, blur_px)


def rounded(points: Sequence[Point], *, rounds: int = 3) -> list[Point]:
    """The corners of a closed outline, cut until they look round.

    ``points``: at least three, in order; ``rounds``: each doubles the number of points.

    References:
        Chaikin, An algorithm for high-speed curve generation, 1974.
    """
    outline = list(points)
    for _ in range(rounds):
        finer: list[Point] = []
        for (ax, ay), (bx, by) in zip(outline, outline[1:] + outline[:1], strict=True):
            finer.append((0.75 * ax + 0.25 * bx, 0.75 * ay + 0.25 * by))
            finer.append((0.25 * ax + 0.75 * bx, 0.25 * ay + 0.75 * by))
        outline = finer
    return outline


def _to_px(side_px: int, points: Sequence[Point]) -> list[tuple[float, float]]:
    return [((x + 1) / 2 * side_px, (y + 1) / 2 * side_px) for x, y in points]


def _soft_filter(blur_px: float) -> ImageFilter.BoxBlur | ImageFilter.GaussianBlur:
    """A blur of a given standard deviation, by the cheapest filter that looks the same."""
    if blur_px > 1.5:
        return ImageFilter.GaussianBlur(blur_px)
    # A box of 2k + 1 whole pixels and a share f of one more at each end has the variance
    # (k (k + 1) (2k + 1) / 3 + 2 f (k + 1)^2) / (2k + 1 + 2 f), here solved for f.
    variance = blur_px**2
    whole = max(k for k in range(3) if k * (k + 1) / 3 <= variance)
    missing = (2 * whole + 1) * (variance - whole * (whole + 1) / 3)
    return ImageFilter.BoxBlur(whole + missing / (2 * ((whole + 1) ** 2 - variance)))


def soften(image: Image.Image, blur_px: float) -> Mask:
    """A picture of mode L as a mask, blurred by a standard deviation of ``blur_px``."""
    if blur_px > 0:
        image = image.filter(_soft_filter(blur_px))
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def blur(mask: Mask, blur_px: float) -> Mask:
    """A mask, blurred by a standard deviation of ``blur_px``."""
    return soften(Image.fromarray(np.rint(mask * 255).astype(np.uint8)), blur_px)


# -- colour, light and camera ---------------------------------------------------------------------
def fill(side_px: int, colour: Colour) -> Picture:
    """A picture of one colour."""
    return np.tile(np.asarray(colour, dtype=np.float32), (side_px, side_px, 1))


def texture(
    rng: np.random.Generator, side_px: int, cells: float, *, octaves: int = 3, stretch: float = 1.0
) -> Mask:
    """Smooth value noise, as of soil, skin or cloth.

    ``cells``: patches along the picture's width in the coarsest octave; ``octaves``: each has twice
    the patches and half the weight of the one before; ``stretch``: > 1 draws the patches out along
    x.

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


def cover(picture: Picture, mask: Mask, colour: Colour | Picture) -> Picture:
    """The picture with a colour laid over it where the mask is."""
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

    ``turn_deg``: clockwise turn in degrees; ``zoom``: > 1 is nearer; ``shift``: in units of half
    the side.
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

    ``gain``: largest relative change of brightness; ``slope``: largest relative change from one
    side to the other; ``tint``: largest relative change of one colour; ``vignette``: largest
    relative darkening of the corners.
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

    ``picture``: what is exposed; not all black; ``mean``: wanted mean over all pixels, of all
    channels together or of each, in (0, 1), before clipping.
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

    ``noise``: standard deviation; ``blur_px``: standard deviation in px.

    Returns:
        Mode RGB.
    """
    image = Image.fromarray(_to_bytes(picture))
    if blur_px > 0:
        image = image.filter(_soft_filter(blur_px))
    values = rng.standard_normal((image.height, image.width, 3), dtype=np.float32)
    values *= np.float32(noise)
    values += np.asarray(image, dtype=np.float32) / np.float32(255)
    return Image.fromarray(_to_bytes(values))

"""A pen for sample painters: smooth flat shapes with soft light and shadow, as in a drawing.

`canvas` lays masks of floats over each other; a figure of a hundred small parts is drawn faster
here, with Pillow, at twice the size and then halved. Only painters call this.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pipelines.samples.canvas import Colour, Picture, Point

#: What is marked in a picture: names of classes and corners, in a unit that the holder says.
Marks = list[tuple[str, tuple[float, ...]]]
#: The unit circle.
_ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_RING = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
#: Steps along one piece of a curve.
_STEPS = np.linspace(0, 1, 6, endpoint=False)[:, np.newaxis]
#: Grey that neither lightens nor darkens.
_NEUTRAL = 128


class Pen:
    """Draws in coordinates of the figure: (0, 0) is its middle, x right, y down, in half sides.

    Attributes:
        zoom: half sides of the picture per unit of the figure.
    """

    def __init__(self, scene: Image.Image, turn_deg: float, zoom: float, shift: Point) -> None:
        """Lay the figure's coordinates over a background.

        ``scene``: mode RGB, square, twice the size of the picture to make; is drawn upon;
        ``turn_deg``: clockwise turn of the figure in degrees; ``zoom``: > 1 is nearer; ``shift``:
        of the figure's middle, in half sides.
        """
        self.zoom = zoom
        self._scene, self._half_px = scene, scene.width / 2
        self._relief = Image.new("L", (scene.width // 4, scene.height // 4), _NEUTRAL)
        self._draw, self._shade = ImageDraw.Draw(scene, "RGBA"), ImageDraw.Draw(self._relief)
        self._lay(turn_deg, zoom, shift)

    def _lay(self, turn_deg: float, zoom: float, shift: Point) -> None:
        cos, sin = zoom * np.cos(np.deg2rad(turn_deg)), zoom * np.sin(np.deg2rad(turn_deg))
        self._matrix = np.array([[cos, sin], [-sin, cos]])
        self._origin = np.array(shift) + 1

    def beside(self, turn_deg: float, zoom: float, shift: Point) -> Pen:
        """A pen for another figure in the same scene and light; arguments as of `__init__`."""
        other = copy.copy(self)
        other.zoom = zoom
        other._lay(turn_deg, zoom, shift)
        return other

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[float, ...]:
        """Where a box of the figure lies in the picture to make: corners as shares of its side."""
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        placed = (corners @ self._matrix + self._origin) / 2
        return (*placed.min(axis=0).tolist(), *placed.max(axis=0).tolist())

    def shape(self, points: Sequence[Point], colour: Colour, opacity: float = 1.0) -> None:
        """Fill a closed curve.

        ``points``: at least three that the curve goes through, in order; ``opacity``: in [0, 1].
        """
        ring = [points[-1], *points, *points[:2]]
        self._draw.polygon(self._place(_curve(ring)), fill=ink(colour, opacity))

    def oval(self, centre: Point, radii: Point, colour: Colour) -> None:
        """Fill an ellipse."""
        self._draw.polygon(self._place(_RING * radii + centre), fill=ink(colour))

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Draw a curve.

        ``points``: at least two that the curve goes through, in order; ``width``: in units of the
        figure.
        """
        width_px = max(1, round(width * self.zoom * self._half_px))
        path = self._place(_curve([points[0], *points, points[-1]]))
        self._draw.line(path, fill=ink(colour), width=width_px, joint="curve")

    def shade(self, centre: Point, radii: Point, gain: float) -> None:
        """Lay a soft ellipse of light or shadow over the figure.

        ``gain``: factor on the brightness, in [0, 2); 1 leaves it as it is.
        """
        small = [(x / 4, y / 4) for x, y in self._place(_RING * radii + centre)]
        self._shade.polygon(small, fill=round(_NEUTRAL * gain))

    def picture(self) -> Picture:
        """What was drawn, at half the size of the scene, in [0, 1] where no shade goes beyond."""
        colours = np.asarray(self._scene.reduce(2), dtype=np.float32)
        soft = self._relief.filter(ImageFilter.GaussianBlur(self._half_px / 60))
        soft = soft.resize(colours.shape[1::-1], Image.Resampling.BILINEAR)
        relief = np.asarray(soft, dtype=np.float32)
        lit: Picture = colours * (relief / np.float32(_NEUTRAL * 255))[..., np.newaxis]
        return lit

    def _place(self, points: NDArray[np.float64]) -> list[tuple[float, float]]:
        placed = (points @ self._matrix + self._origin) * self._half_px
        return [(x, y) for x, y in placed.tolist()]


def _curve(points: Sequence[Point]) -> NDArray[np.float64]:
    """A curve through all points but the first and the last, which only steer it.

    References:
        Catmull and Rom, A class of local interpolating splines, 1974 (uniform form).
    """
    p = np.asarray(points, dtype=np.float64)[:, np.newaxis]
    t = _STEPS
    before, start, end, after = p[:-3], p[1:-2], p[2:-1], p[3:]
    bend = 2 * before - 5 * start + 4 * end - after
    twist = 3 * (start - end) + after - before
    pieces = start + 0.5 * t * (end - before + t * (bend + t * twist))
    return np.concatenate([pieces.reshape(-1, 2), p[-2]])


def mirrored(right: Sequence[Point], x: float = 0.0) -> list[Point]:
    """A closed outline that is the same on both sides.

    ``right``: its right half from top to bottom, with x counted from the axis; ``x``: where the
    axis stands.
    """
    return [*((x + u, v) for u, v in right), *((x - u, v) for u, v in reversed(right))]


def ellipse_points(centre: Point, radii: Point) -> list[Point]:
    """Twelve points on an ellipse and the first once more, for a line."""
    ring = (_RING[::3] * radii + centre).tolist()
    return [(x, y) for x, y in [*ring, ring[0]]]


def ink(colour: Colour, opacity: float = 1.0) -> tuple[int, ...]:
    """A colour as Pillow takes it: red, green, blue, opacity in [0, 255]; clipped."""
    return tuple(round(255 * min(max(value, 0.0), 1.0)) for value in (*colour, opacity))


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """A colour between two; ``share`` is that of the second."""
    red, green, blue = (x * (1 - share) + y * share for x, y in zip(a, b, strict=True))
    return (red, green, blue)

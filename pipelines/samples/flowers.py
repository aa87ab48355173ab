"""Painted flowers of fourteen species, told by petals and centre.

A plant keeps its colour, and every species has every colour: what two plants of a species share is
how they are built, so that nothing is found by colour alone. Background and light are drawn alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour, Point
from pipelines.samples.pen import Pen, mix

_COLOURS = ("f4ead8", "f2c63c", "e8883a", "d84a4a", "d878b0", "9a6cd0", "6c84dc", "f0b8c8")
_GREEN: Colour = (0.26, 0.46, 0.2)
_DARK: Colour = (0.16, 0.08, 0.1)
_GOLD: Colour = (0.9, 0.7, 0.2)
#: Mean of every picture, so that how much of it is petal is not told by its brightness.
_MEAN: Colour = (0.4, 0.42, 0.33)


@dataclass(frozen=True, slots=True)
class _Star:
    """A flower seen from the front; lengths in half sides.

    Attributes:
        width: of a petal, as a share of its length.
        tip: where it is widest, as a share of its length; larger is rounder.
        rings: of petals, the second between the first.
        centre: radius.
        is_dark: whether the centre is dark, else golden.
        marks: ``spots``, ``lines``, ``blotch`` or ``trumpet``.
    """

    n_petals: int
    length: float
    width: float
    tip: float
    rings: int
    centre: float
    is_dark: bool = False
    marks: str = ""


_STARS: Mapping[str, _Star] = {
    "daisy": _Star(19, 0.62, 0.17, 0.7, 1, 0.2),
    "sunflower": _Star(17, 0.7, 0.24, 0.45, 2, 0.34, is_dark=True),
    "windflower": _Star(7, 0.62, 0.5, 0.62, 1, 0.1, marks="stamens"),
    "tigerlily": _Star(6, 0.78, 0.26, 0.45, 1, 0.05, marks="spots"),
    "daffodil": _Star(6, 0.68, 0.46, 0.5, 1, 0.0, marks="trumpet"),
    "pansy": _Star(5, 0.6, 0.98, 0.66, 1, 0.06, marks="blotch"),
    "iris": _Star(3, 0.8, 0.6, 0.72, 2, 0.0, marks="lines"),
    "poppy": _Star(4, 0.68, 1.3, 0.72, 1, 0.16, is_dark=True, marks="stamens"),
    "dandelion": _Star(34, 0.5, 0.08, 0.85, 3, 0.0),
}


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A flower in a meadow.

    The subject draws the plant: its colour and proportions; the shot draws the place, how it is
    held, light and noise.
    """
    place = _DRAWN[label]
    red, green, blue = bytes.fromhex(_COLOURS[int(subject.integers(len(_COLOURS)))])
    colour = mix((red / 255, green / 255, blue / 255), (0.5, 0.5, 0.5), subject.uniform(0, 0.25))
    zoom = shot.uniform(0.75, 1.0)
    shift = (shot.uniform(-0.15, 0.15), shot.uniform(-0.15, 0.15))
    turn_deg = shot.uniform(-25, 25)
    pen = Pen(_meadow(shot, side_px), turn_deg, zoom, shift)
    pen.line([(0, 0), (shot.uniform(-0.2, 0.2), 0.9), (shot.uniform(-0.3, 0.3), 2.4)], 0.07, _GREEN)
    place(pen, label, colour, subject)
    lit = canvas.expose(pen.picture(), _MEAN)
    return canvas.finish(canvas.light(lit, shot), shot, blur_px=shot.uniform(0.2, 0.8))


def _meadow(shot: np.random.Generator, side_px: int) -> Image.Image:
    """Blurred leaves at twice the picture's size."""
    small_px = side_px // 2
    tones = [mix(_GREEN, (0.3, 0.2, 0.1), shot.uniform(0, 0.8)), _GREEN, (0.62, 0.66, 0.5)]
    picture = canvas.fill(small_px, tones[0])
    for tone in tones[1:]:
        patches = canvas.texture(shot, small_px, shot.uniform(3, 7), octaves=2)
        picture = canvas.cover(picture, np.clip(patches * 2 - 0.9, 0, 1), tone)
    image = Image.fromarray(np.rint(picture * 255).astype(np.uint8))
    return image.resize((2 * side_px, 2 * side_px), Image.Resampling.BICUBIC)


def _along(angle: float, far: float, aside: float = 0.0) -> Point:
    """A place so far out at an angle (clockwise from the top), and so far to its right."""
    sin, cos = float(np.sin(angle)), float(np.cos(angle))
    return far * sin + aside * cos, -far * cos + aside * sin


def _petal(pen: Pen, angle: float, length: float, half: float, tip: float, colour: Colour) -> None:
    side = [(0.08, 0.35), (0.5 * tip, 0.75), (tip, 1.0), (0.5 + 0.5 * tip, 0.72)]
    right = [_along(angle, far * length, wide * half) for far, wide in side]
    left = [_along(angle, far * length, -wide * half) for far, wide in reversed(side)]
    pen.shape([*right, _along(angle, length), *left], colour)


def _star(pen: Pen, label: str, colour: Colour, subject: np.random.Generator) -> None:
    star = _STARS[label]
    stretch, first = subject.uniform(0.9, 1.08), subject.uniform(-0.1, 0.1)
    length, step = star.length * stretch, 2 * np.pi / star.n_petals
    half = length * star.width / 2 * subject.uniform(0.92, 1.08)
    for ring in range(star.rings):
        shade = mix(colour, (0, 0, 0), 0.3 - 0.12 * ring)
        reach = length * (1 - 0.22 * ring)
        for petal in range(star.n_petals):
            angle = first + (petal + ring / star.rings) * step
            _petal(pen, angle, reach * 1.03, half * 1.12, star.tip, mix(shade, (0, 0, 0), 0.35))
            tone = mix(colour, (1, 1, 1), 0.12 * ((petal + ring) % 2))
            _petal(pen, angle, reach, half, star.tip, tone)
            _mark(pen, star, angle, reach, half, colour)
    core = _DARK if star.is_dark else _GOLD
    if star.centre:
        pen.oval((0, 0), (star.centre, star.centre), core)
        for dot in range(round(260 * star.centre)):
            far = star.centre * 0.94 * np.sqrt((dot + 0.5) / (260 * star.centre))
            pen.oval(_along(2.4 * dot, far), (0.016, 0.016), mix(core, (1, 0.8, 0.4), 0.3))
    if star.marks == "stamens":
        for stamen in range(16):
            place = _along(2 * np.pi * stamen / 16, star.centre + 0.07)
            pen.oval(place, (0.022, 0.022), mix(_DARK, _GOLD, 0.0 if star.is_dark else 0.7))
    if star.marks == "trumpet":
        for share, dark in ((0.34, 0.25), (0.3, 0.0), (0.2, 0.45)):
            pen.oval((0, 0), (share * stretch,) * 2, mix(_GOLD, _DARK, dark))


def _mark(pen: Pen, star: _Star, angle: float, length: float, half: float, colour: Colour) -> None:
    dark = mix(colour, _DARK, 0.8)
    if star.marks == "spots":
        for spot in range(7):
            aside = half * 0.5 * ((spot * 3 % 5) / 2 - 1) * 0.8
            pen.oval(_along(angle, length * (0.25 + 0.075 * spot), aside), (0.018, 0.018), dark)
    if star.marks == "lines":
        for lean in (-0.4, 0.0, 0.4):
            ends = [_along(angle, length * far, half * lean * far) for far in (0.1, 0.45, 0.75)]
            pen.line(ends, 0.018, mix(_GOLD, dark, abs(lean) * 2))
    if star.marks == "blotch":
        _petal(pen, angle, length * 0.5, half * 0.55, star.tip, dark)


def _cup(pen: Pen, label: str, colour: Colour, subject: np.random.Generator) -> None:
    """A tulip from the side: a cup of three petals, and broad leaves."""
    wide, high = subject.uniform(0.34, 0.42), subject.uniform(0.58, 0.7)
    for side in (-1, 1):
        blade = [(0, 1.3), (side * 0.5, 0.7), (side * 0.62, 0.05), (side * 0.3, 0.75)]
        pen.shape(blade, mix(_GREEN, (0.6, 0.8, 0.5), 0.25))
        outer = [(0, 0.3), (side * wide, 0.12), (side * wide, -high), (side * 0.06, -0.1)]
        pen.shape(outer, mix(colour, (0, 0, 0), 0.22))
    middle = [
        (0.0, 0.32),
        (0.24, 0.1),
        (0.2, -0.35),
        (0.0, -high - 0.04),
        (-0.2, -0.35),
        (-0.24, 0.1),
    ]
    pen.shape(middle, colour)
    pen.line([(0, 0.2), (0.01, -0.2), (0, -high + 0.1)], 0.014, mix(colour, (0, 0, 0), 0.2))


def _bell(pen: Pen, at: Point, size: float, colour: Colour, *, is_checked: bool = False) -> None:
    x, y = at
    half = [(0.1, 0.0), (0.3, 0.3), (0.34, 0.7), (0.5, 1.0), (0.2, 0.9)]
    outline = [(x + size * u, y + size * v) for u, v in half]
    outline += [(x, y + size)] + [(x - size * u, y + size * v) for u, v in reversed(half)]
    pen.shape(outline, mix(colour, (0, 0, 0), 0.1))
    pen.line([(x, y), (x + 0.04 * size, y + 0.8 * size)], 0.03 * size, mix(colour, (1, 1, 1), 0.4))
    for row in range(6) if is_checked else ():
        for column in range(4):
            if (row + column) % 2:
                place = (x + size * (0.16 * column - 0.24), y + size * (0.18 + 0.13 * row))
                pen.oval(place, (0.06 * size, 0.055 * size), mix(colour, _DARK, 0.55))


def _bells(pen: Pen, label: str, colour: Colour, subject: np.random.Generator) -> None:
    """Many bells on a bending stalk."""
    n_bells, size = int(subject.integers(6, 9)), subject.uniform(0.26, 0.32)
    pen.line([(0, 0.9), (0.02, -0.3), (0.3, -0.8)], 0.035, _GREEN)
    for bell in range(n_bells):
        side, y = (-1) ** bell, -0.72 + 1.25 * bell / n_bells
        pen.line([(0.05, y - 0.06), (side * 0.24, y - 0.04), (side * 0.3, y + 0.02)], 0.02, _GREEN)
        _bell(pen, (side * 0.3, y), size, colour)


def _nodding(pen: Pen, label: str, colour: Colour, subject: np.random.Generator) -> None:
    """One flower that hangs from a hooked stalk: three petals, or a chequered bell."""
    size = subject.uniform(0.62, 0.74)
    pen.line([(-0.35, 1.2), (-0.32, -0.3), (-0.15, -0.62), (0.05, -0.4)], 0.045, _GREEN)
    for lean in (-0.55, -0.85):
        pen.shape([(-0.36, 1.2), (lean, 0.3), (lean - 0.05, -0.3), (lean + 0.14, 0.4)], _GREEN)
    if label == "fritillary":
        _bell(pen, (0.05, -0.42), size * 1.25, colour, is_checked=True)
        return
    pen.oval((0.05, -0.38), (0.09, 0.11), mix(_GREEN, (0.5, 0.7, 0.3), 0.5))
    for lean in (-0.45, 0.45, 0.0):
        angle = np.pi - lean
        x, y = _along(angle, size)
        outline = [_along(angle, size * f, size * 0.21 * w) for f, w in ((0.3, 0.7), (0.7, 1.0))]
        outline += [(x, y)]
        outline += [_along(angle, size * f, -size * 0.21 * w) for f, w in ((0.7, 1.0), (0.3, 0.7))]
        shade = mix(colour, (0, 0, 0), 0.25 * abs(lean))
        pen.shape([(0.05, -0.34), *((0.05 + u, v - 0.34) for u, v in outline)], shade)


def _cluster(pen: Pen, label: str, colour: Colour, subject: np.random.Generator) -> None:
    """Many small flowers of five round petals."""
    size = subject.uniform(0.13, 0.16)
    for flower in range(int(subject.integers(9, 12))):
        x, y = _along(2.4 * flower, 0.19 * float(np.sqrt(flower)) * 1.05)
        for petal in range(5):
            u, v = _along(2 * np.pi * petal / 5 + flower, size * 0.62)
            pen.oval((x + u, y + v), (size * 0.5, size * 0.5), mix(colour, (0, 0, 0), 0.25))
            pen.oval((x + u, y + v), (size * 0.44, size * 0.44), colour)
        pen.oval((x, y), (size * 0.28, size * 0.28), _GOLD)


_Draw = Callable[[Pen, str, Colour, np.random.Generator], None]
_DRAWN: Mapping[str, _Draw] = {
    **dict.fromkeys(_STARS, _star),
    "tulip": _cup,
    "bluebell": _bells,
    **dict.fromkeys(("snowdrop", "fritillary"), _nodding),
    "forget_me_not": _cluster,
}
#: What is painted: the card of an embedding names no identities.
IDENTITIES = tuple(_DRAWN)

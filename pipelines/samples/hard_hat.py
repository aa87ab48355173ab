"""Painted building sites: people with and without a helmet, with and without workwear.

Not every head cover is a helmet: caps and bare heads are the same class, and a helmet's colour is
that of caps too. Now and then nobody is there.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour
from pipelines.samples.pen import Marks, Pen, ink, mirrored, mix
from pipelines.samples.portrait import (
    Person,
    draw_features,
    draw_hair,
    draw_head,
    make_person,
    pick,
)

_COVERS = ("f2c31b", "f4f4f2", "d9541e", "2f62b3", "c22a2a")
_VESTS = ("e8e337", "f28a1c")
_CLOTHES = ("33414f", "5a5a5a", "7a4a35", "27364f", "8a8f96", "3f5a3c")
_SKIES = ("a9c4dd", "c9ccd0", "dfe3e6", "8fb0cf")
_WALLS = ("b9a48a", "9a8f83", "c2b8a8", "8c7a6b")
_STRIPE: Colour = (0.92, 0.93, 0.9)
#: What each label of the card says of a person: a helmet, workwear; the other of the two is drawn.
_SAYS: dict[str, tuple[bool | None, bool | None]] = {
    "helmet": (True, None),
    "no_helmet": (False, None),
    "wear": (None, True),
    "no_wear": (None, False),
}
_MAX_PEOPLE = 4
_EMPTY_SHARE = 0.05


def paint_marked(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> tuple[Image.Image, Marks]:
    """A site in which somebody is as the label says, with the boxes of heads and of what is worn.

    The subject draws site and crew; the shot draws who is there, what they wear, light and camera.
    """
    says = _SAYS[label]
    site = _site(subject, side_px)
    crew = [make_person(subject) for _ in range(_MAX_PEOPLE)]
    n_people = int(shot.integers(1, _MAX_PEOPLE + 1))
    if shot.random() < _EMPTY_SHARE:
        n_people = 0
    pen = Pen(site, 0.0, 1.0, (0.0, 0.0))
    marks: Marks = []
    places = np.linspace(-0.72, 0.72, n_people) if n_people > 1 else np.array([0.0])
    # Far ones first, so that near ones stand before them.
    zooms = np.sort(shot.uniform(0.2, 0.36, n_people))
    for number, x in enumerate(shot.permutation(places[:n_people])):
        has_helmet, has_vest = (bool(shot.random() < 0.5) for _ in range(2))
        if number == n_people - 1:
            has_helmet = has_helmet if says[0] is None else says[0]
            has_vest = has_vest if says[1] is None else says[1]
        zoom = float(zooms[number])
        shift = (float(x + shot.uniform(-0.08, 0.08)), float(shot.uniform(-0.3, 0.05)))
        figure = pen.beside(float(shot.uniform(-5, 5)), zoom, shift)
        marks += _draw_worker(figure, crew[number], shot, has_helmet=has_helmet, has_vest=has_vest)
    lit = canvas.light(pen.picture(), shot, gain=0.2, slope=0.4, tint=0.06)
    blur_px = float(shot.choice((0.0, 0.7)))
    return canvas.finish(lit, shot, noise=0.015, blur_px=blur_px), marks


def _site(subject: np.random.Generator, side_px: int) -> Image.Image:
    """Sky, a wall of bricks or panels, scaffolding and ground, at twice the size."""
    side = 2 * side_px
    scene = Image.new("RGB", (side, side), ink(pick(subject, _SKIES))[:3])
    draw = ImageDraw.Draw(scene, "RGBA")
    wall, top = pick(subject, _WALLS), float(subject.uniform(0.1, 0.4)) * side
    draw.rectangle((0, top, side, side), fill=ink(wall))
    step = float(subject.uniform(0.05, 0.12)) * side
    for row in range(int(side / step) + 1):
        y = top + row * step
        draw.line((0, y, side, y), fill=ink(mix(wall, (0, 0, 0), 0.2)), width=2)
    ground = float(subject.uniform(0.78, 0.9)) * side
    draw.rectangle((0, ground, side, side), fill=ink(mix(wall, (0.25, 0.2, 0.15), 0.6)))
    pole = mix(pick(subject, _COVERS), (0.5, 0.5, 0.5), 0.6)
    for x in np.sort(subject.uniform(0, side, int(subject.integers(2, 5)))):
        draw.line((x, 0, x, ground), fill=ink(pole), width=max(2, side // 60))
    for y in subject.uniform(0.05, 0.75, 2) * side:
        draw.line((0, y, side, y + side * 0.02), fill=ink(pole), width=max(2, side // 80))
    return scene


def _draw_worker(
    pen: Pen, person: Person, shot: np.random.Generator, *, has_helmet: bool, has_vest: bool
) -> Marks:
    clothes = pick(shot, _CLOTHES)
    for side in (-1, 1):
        legs = [(side * 0.28, 1.9), (side * 0.32, 3.0), (side * 0.34, 4.2)]
        pen.line(legs, 0.42, mix(clothes, (0.1, 0.1, 0.15), 0.5))
        pen.line([(side * 0.66, 0.95), (side * 0.86, 1.5), (side * 0.7, 2.05)], 0.24, clothes)
    torso = [(0.2, 0.6), (0.62, 0.76), (0.72, 1.1), (0.6, 2.1)]
    pen.shape(mirrored([(0.02, 0.58), *torso, (0.02, 2.15)]), clothes)
    if has_vest:
        _draw_vest(pen, pick(shot, _VESTS))
    pen.shape(mirrored([(0.16, 0.35), (0.2, 0.7)]), mix(person.skin, (0.1, 0.02, 0), 0.25))
    draw_head(pen, person)
    draw_features(pen, person, float(shot.uniform(-0.05, 0.05)), shot)
    w, cover = person.half_width, pick(shot, _COVERS)
    head = pen.box(-w - 0.06, -0.72, w + 0.06, 0.55)
    body = ("wear" if has_vest else "no_wear", pen.box(-0.86, 0.56, 0.86, 2.15))
    if has_helmet:
        return [("helmet", _draw_helmet(pen, w, cover)), body]
    draw_hair(pen, person)
    if shot.random() < 0.35:
        # A cap, flat and soft, with its peak to one side.
        pen.shape(mirrored([(0.02, -0.75), (0.7 * w, -0.66), (w + 0.04, -0.36)]), cover)
        side = int(shot.choice((-1, 1)))
        peak = mix(cover, (0, 0, 0), 0.25)
        pen.line([(0.2 * side * w, -0.37), (side * (w + 0.22), -0.33)], 0.07, peak)
    return [("no_helmet", head), body]


def _draw_vest(pen: Pen, colour: Colour) -> None:
    for side in (-1, 1):
        half = [(0.08, 0.85), (0.3, 0.66), (0.6, 0.78), (0.66, 1.1), (0.58, 2.05), (0.05, 2.05)]
        pen.shape([(side * x, y) for x, y in half], colour)
        pen.line([(side * 0.4, 0.72), (side * 0.4, 2.0)], 0.09, _STRIPE)
    for y in (1.35, 1.75):
        pen.line([(-0.6, y), (0.6, y)], 0.09, _STRIPE)


def _draw_helmet(pen: Pen, w: float, colour: Colour) -> tuple[float, ...]:
    """A hard shell with a rim and a rib; gives its box."""
    right, dark = w + 0.12, mix(colour, (0, 0, 0), 0.35)
    dome = [(0.02, -1.0), (0.55 * w, -0.95), (0.95 * right, -0.66), (right, -0.34)]
    pen.shape(mirrored([*dome, (0.02, -0.3)]), colour)
    pen.line([(0.0, -0.98), (0.0, -0.4)], 0.09, mix(colour, (1, 1, 1), 0.35))
    pen.line([(-right - 0.08, -0.33), (0, -0.27), (right + 0.08, -0.33)], 0.1, dark)
    pen.shade((-0.4 * w, -0.75), (0.3 * w, 0.14), 1.25)
    return pen.box(-right - 0.1, -1.02, right + 0.1, -0.22)

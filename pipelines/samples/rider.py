"""Painted streets: riders of e-scooters, people on foot, bicycles parked and ridden.

A person alone tells nothing, nor do two wheels: riders and people on foot are dressed alike, and on
a ridden bicycle somebody sits. Now and then nobody is there.
"""

from __future__ import annotations

import itertools

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour, Point
from pipelines.samples.pen import Marks, Pen, ellipse_points, ink, mirrored, mix
from pipelines.samples.portrait import (
    CLOTHS,
    DARK,
    Person,
    draw_features,
    draw_hair,
    draw_head,
    make_person,
    pick,
)

_LABELS = ("rider", "pedestrian", "bicycle")
_SKIES = ("a9c4dd", "c9ccd0", "dfe3e6", "8fb0cf")
_FRONTS = ("c7b299", "a8755c", "d9d2c3", "8d929a", "b98f7a")
_METALS = ("2b2d31", "b3382c", "2f62b3", "5a8f4f", "dcdcd6")
_RUBBER: Colour = (0.09, 0.09, 0.1)
#: Where feet and tyres touch the ground, in units of a head.
_GROUND = 4.5
_MAX_THINGS = 3
_EMPTY_SHARE = 0.05


def paint_marked(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> tuple[Image.Image, Marks]:
    """A street on which somebody or something is as the label says, with boxes.

    They are around rider and scooter, and around a bicycle and who sits on it.

    The subject draws the street and its people; the shot draws who comes along, light and camera.
    """
    if label not in _LABELS:
        raise KeyError(label)
    street = _street(subject, side_px)
    people = [make_person(subject) for _ in range(_MAX_THINGS)]
    n = 0 if shot.random() < _EMPTY_SHARE else int(shot.integers(1, _MAX_THINGS + 1))
    shown = [*shot.choice(_LABELS, max(n - 1, 0)).tolist(), label][:n]
    pen = Pen(street, 0.0, 1.0, (0.0, 0.0))
    places = shot.permutation(np.linspace(-0.62, 0.62, n) if n > 1 else np.array([0.0]))
    # Far ones first, so that near ones stand before them; who is near stands lower.
    zooms = np.sort(shot.uniform(0.13, 0.24, n))
    marks: Marks = []
    for name, person, x, zoom in zip(shown, people, places, zooms.tolist(), strict=False):
        feet = -0.05 + 4.2 * (zoom - 0.04)
        shift = (float(x + shot.uniform(-0.1, 0.1)), float(feet - _GROUND * zoom))
        figure = pen.beside(float(shot.uniform(-3, 3)), zoom, shift)
        way = int(shot.choice((-1, 1)))
        figure.shade((0, _GROUND), (1.2, 0.16), 0.7)
        marks.append((name, _DRAWN[name](figure, person, shot, way)))
    lit = canvas.light(pen.picture(), shot, gain=0.2, slope=0.4, tint=0.06)
    blur_px = float(shot.choice((0.0, 0.7)))
    return canvas.finish(lit, shot, noise=0.015, blur_px=blur_px), marks


def _street(subject: np.random.Generator, side_px: int) -> Image.Image:
    """Sky, fronts with windows, pavement, kerb and road, at twice the size."""
    side = 2 * side_px
    scene = Image.new("RGB", (side, side), ink(pick(subject, _SKIES))[:3])
    draw = ImageDraw.Draw(scene, "RGBA")
    foot = float(subject.uniform(0.42, 0.52)) * side
    edges = [0.0, *np.sort(subject.uniform(0.2, 0.8, 2) * side).tolist(), float(side)]
    for left, right in itertools.pairwise(edges):
        front, top = pick(subject, _FRONTS), float(subject.uniform(0.02, 0.22)) * side
        draw.rectangle((left, top, right, foot), fill=ink(front))
        glass = mix(front, (0.2, 0.25, 0.32), 0.7)
        step = float(subject.uniform(0.1, 0.14)) * side
        for x in np.arange(left + 0.3 * step, right - 0.6 * step, step):
            for y in np.arange(top + 0.3 * step, foot - 0.9 * step, 1.2 * step):
                draw.rectangle((x, y, x + 0.5 * step, y + 0.7 * step), fill=ink(glass))
    grey = float(subject.uniform(0.3, 0.6))
    kerb = float(subject.uniform(0.62, 0.75)) * side
    draw.rectangle((0, foot, side, kerb), fill=ink((grey + 0.16, grey + 0.15, grey + 0.13)))
    draw.rectangle((0, kerb, side, side), fill=ink((grey, grey, grey + 0.02)))
    draw.line((0, kerb, side, kerb), fill=ink((0.78, 0.77, 0.74)), width=max(2, side // 90))
    for x in np.arange(-0.1, 1.0, 0.28) * side:
        line = [(x, 0.9 * side), (x + 0.14 * side, 0.9 * side)]
        draw.line(line, fill=ink((0.88, 0.88, 0.84)), width=max(2, side // 60))
    return scene


# -- people ---------------------------------------------------------------------------------------
def _draw_person(
    pen: Pen,
    person: Person,
    shot: np.random.Generator,
    knees: list[list[Point]],
    hands: list[Point],
) -> None:
    """Head, trunk, legs of (hip, knee, foot) and arms that end in hands."""
    trousers = mix(pick(shot, CLOTHS), (0.1, 0.1, 0.15), 0.45)
    for leg in knees:
        pen.line(leg, 0.4, trousers)
        x, y = leg[-1]
        pen.oval((x + 0.06, y), (0.3, 0.13), _RUBBER)
    trunk = [(0.2, 0.6), (0.6, 0.76), (0.66, 1.1), (0.52, 2.2)]
    pen.shape(mirrored([(0.02, 0.58), *trunk, (0.02, 2.25)]), person.clothes)
    for side, hand in zip((-1, 1), hands, strict=True):
        x, y = hand
        elbow = ((0.62 * side + x) / 2 + 0.14 * side, (0.9 + y) / 2)
        pen.line([(0.56 * side, 0.85), elbow, hand], 0.25, mix(person.clothes, DARK, 0.15))
        pen.oval(hand, (0.13, 0.13), person.skin)
    pen.shape(mirrored([(0.16, 0.35), (0.2, 0.7)]), mix(person.skin, DARK, 0.25))
    draw_head(pen, person)
    draw_features(pen, person, float(shot.uniform(-0.05, 0.05)), shot)
    draw_hair(pen, person)


def _draw_pedestrian(
    pen: Pen, person: Person, shot: np.random.Generator, way: int
) -> tuple[float, ...]:
    stride = way * float(shot.uniform(0.1, 0.45))
    legs: list[list[Point]] = [
        [(0.26 * s, 2.1), (0.28 * s + s * stride / 2, 3.2), (0.3 * s + s * stride, 4.4)]
        for s in (-1, 1)
    ]
    hands = [(s * (0.86 - 0.3 * stride), 2.15) for s in (-1, 1)]
    _draw_person(pen, person, shot, legs, hands)
    reach = max(0.95, 0.62 + abs(stride))
    return pen.box(-reach, -0.75, reach, _GROUND + 0.03)


def _draw_rider(pen: Pen, person: Person, shot: np.random.Generator, way: int) -> tuple[float, ...]:
    """Somebody who stands on a deck between two small wheels and holds a bar."""
    metal, bar = pick(shot, _METALS), (way * 0.62, 1.62)
    for x in (-1.05, 1.1):
        _draw_wheel(pen, (way * x, _GROUND - 0.27), 0.24, 0.13)
    pen.line([(-way * 1.05, 4.16), (-way * 0.8, 4.3), (way * 0.95, 4.3)], 0.17, metal)
    legs: list[list[Point]] = [
        [(0.2 * s, 2.1), (0.24 * s - way * 0.1, 3.1), (0.3 * s - way * 0.25, 4.12)] for s in (-1, 1)
    ]
    hands = [(bar[0] - 0.3, bar[1]), (bar[0] + 0.3, bar[1])]
    _draw_person(pen, person, shot, legs, hands)
    pen.line([(way * 1.1, 4.2), (way * 0.86, 3.0), bar], 0.15, metal)
    pen.line([(bar[0] - 0.45, bar[1]), (bar[0] + 0.45, bar[1])], 0.14, _RUBBER)
    return pen.box(-1.4, -0.75, 1.4, _GROUND)


# -- bicycles -------------------------------------------------------------------------------------
def _draw_wheel(pen: Pen, hub: Point, radius: float, tyre: float) -> None:
    pen.line(ellipse_points(hub, (radius, radius)), tyre, _RUBBER)
    pen.oval(hub, (0.08, 0.08), (0.6, 0.6, 0.6))


def _draw_bicycle(
    pen: Pen, person: Person, shot: np.random.Generator, way: int
) -> tuple[float, ...]:
    """Two large wheels and a frame; every other one is ridden."""
    metal, radius = pick(shot, _METALS), 0.92
    low = _GROUND - radius - 0.05
    crank, seat, fork = (-way * 0.1, low), (-way * 0.5, low - 1.25), (way * 0.85, low - 1.3)
    rear, front, bar = (-way * 1.3, low), (way * 1.3, low), (way * 0.75, low - 1.65)
    for hub in (rear, front):
        _draw_wheel(pen, hub, radius, 0.11)
        for angle in np.arange(6) * np.pi / 6:
            spoke = (0.85 * radius * float(np.cos(angle)), 0.85 * radius * float(np.sin(angle)))
            ends = [(hub[0] - spoke[0], hub[1] - spoke[1]), (hub[0] + spoke[0], hub[1] + spoke[1])]
            pen.line(ends, 0.03, (0.7, 0.7, 0.7))
    is_ridden = bool(shot.random() < 0.5)
    if is_ridden:
        hip = (seat[0] * 0.6, 2.1)
        legs: list[list[Point]] = [
            [hip, (way * 0.35, 2.7 + 0.2 * s), (crank[0] + 0.15 * s, low + 0.3 * s)]
            for s in (-1, 1)
        ]
        _draw_person(pen, person, shot, legs, [(bar[0] - 0.2, bar[1]), (bar[0] + 0.2, bar[1])])
    for tube in ((rear, crank), (crank, seat), (crank, fork), (seat, fork), (rear, seat)):
        pen.line(tube, 0.12, metal)
    pen.line([front, fork, bar], 0.12, metal)
    pen.line([(seat[0] - 0.28, seat[1] - 0.12), (seat[0] + 0.22, seat[1] - 0.1)], 0.16, _RUBBER)
    pen.line([(bar[0] - 0.3, bar[1] + 0.05), bar, (bar[0] + 0.3, bar[1])], 0.12, _RUBBER)
    top = -0.75 if is_ridden else bar[1] - 0.08
    return pen.box(-1.3 - radius - 0.05, top, 1.3 + radius + 0.05, _GROUND)


_DRAWN = {"rider": _draw_rider, "pedestrian": _draw_pedestrian, "bicycle": _draw_bicycle}

"""Painted waiting rooms: every face with a mask worn, not worn, or worn incorrectly.

Clothes have the colours of masks, beards turn up in all classes, and somebody seen from behind has
a head and no face. Now and then nobody is there.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.face_masks import wear
from pipelines.samples.pen import Marks, Pen, ink, mirrored, mix
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

_LABELS = ("with_mask", "without_mask", "mask_worn_incorrectly")
#: How often the others in a room are as each label says.
_SHARES = (0.4, 0.35, 0.25)
_WALLS = ("c9d3d6", "d8cfbf", "b7c4b1", "c4b3a6", "e3e3de")
_FLOORS = ("8a8078", "6f7a80", "9a8a70", "77706a")
_MAX_PEOPLE = 3
_EMPTY_SHARE = 0.05
_BEHIND_SHARE = 0.12


def paint_marked(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> tuple[Image.Image, Marks]:
    """A room in which somebody is as the label says, with the boxes of faces.

    The subject draws the room and who waits there; the shot draws who is seen and how, light and
    camera.
    """
    if label not in _LABELS:
        raise KeyError(label)
    pen = Pen(_room(subject, side_px), 0.0, 1.0, (0.0, 0.0))
    crowd = [make_person(subject) for _ in range(_MAX_PEOPLE)]
    n = 0 if shot.random() < _EMPTY_SHARE else int(shot.integers(1, _MAX_PEOPLE + 1))
    shown = [*shot.choice(_LABELS, max(n - 1, 0), p=_SHARES).tolist(), label][:n]
    places = shot.permutation(np.linspace(-0.62, 0.62, n) if n > 1 else np.zeros(n))
    # Far ones first, so that near ones sit before them.
    zooms = np.sort(shot.uniform(0.36, 0.54, n)).tolist()
    marks: Marks = []
    for number, (name, x, zoom) in enumerate(zip(shown, places, zooms, strict=True)):
        shift = (float(x + shot.uniform(-0.08, 0.08)), float(shot.uniform(-0.4, 0.3)))
        figure = pen.beside(float(shot.uniform(-10, 10)), zoom, shift)
        is_turned = number < n - 1 and bool(shot.random() < _BEHIND_SHARE)
        box = _draw_person(figure, crowd[number], shot, "" if is_turned else name)
        if not is_turned:
            marks.append((name, box))
    lit = canvas.light(pen.picture(), shot, gain=0.2, slope=0.4, tint=0.06)
    blur_px = float(shot.choice((0.0, 0.6)))
    return canvas.finish(lit, shot, noise=0.015, blur_px=blur_px), marks


def _room(subject: np.random.Generator, side_px: int) -> Image.Image:
    """A wall with pictures or windows, a skirting board and a floor, at twice the size."""
    side = 2 * side_px
    wall = pick(subject, _WALLS)
    scene = Image.new("RGB", (side, side), ink(wall)[:3])
    draw = ImageDraw.Draw(scene, "RGBA")
    foot = float(subject.uniform(0.62, 0.8)) * side
    for x in np.arange(float(subject.uniform(-0.1, 0.2)), 1.0, 0.42):
        width, top = float(subject.uniform(0.16, 0.3)), float(subject.uniform(0.04, 0.2))
        frame = (x * side, top * side, (x + width) * side, (top + 0.32) * side)
        glass = mix(pick(subject, CLOTHS), (0.75, 0.8, 0.85), 0.6)
        rim = mix(wall, (1, 1, 1), 0.5)
        draw.rectangle(frame, fill=ink(glass), outline=ink(rim), width=side // 60)
    draw.rectangle((0, foot, side, side), fill=ink(pick(subject, _FLOORS)))
    draw.line((0, foot, side, foot), fill=ink(mix(wall, (0, 0, 0), 0.45)), width=side // 60)
    return scene


def _draw_person(
    pen: Pen, person: Person, shot: np.random.Generator, name: str
) -> tuple[float, ...]:
    """Head and shoulders, as a label says or from behind; gives the box of the face."""
    yaw, side = float(shot.uniform(-0.05, 0.05)), int(shot.choice((-1, 1)))
    torso = [(0.25, 0.68), (0.85, 0.9), (1.08, 1.4), (1.12, 5.0)]
    pen.shape(mirrored([(0.02, 0.66), *torso, (0.02, 5.2)]), person.clothes)
    neck = mix(person.skin, DARK, 0.25)
    pen.shape(mirrored([(0.21, 0.3), (0.27, 0.78), (0.1, 0.9)]), neck)
    draw_head(pen, person)
    w = person.half_width
    if not name:
        back = [
            (0.02, -0.74),
            (0.62 * w, -0.68),
            (w + 0.05, -0.3),
            (w + 0.02, 0.2),
            (0.5 * w, 0.46),
        ]
        pen.shape(mirrored([*back, (0.02, 0.5)]), person.hair)
    else:
        draw_features(pen, person, yaw, shot)
        draw_hair(pen, person)
        wear(name, pen, person, yaw, side, shot)
    return pen.box(-w - 0.03, -0.5, w + 0.03, 0.56)

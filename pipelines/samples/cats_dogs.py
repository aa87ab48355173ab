"""Painted heads of cats and dogs.

They differ in ears (pointed or hanging), muzzle (short or long), pupils and whiskers; fur, pattern,
eye colour, background and light are drawn alike in both classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour, Mask, Picture, Point

_FURS: tuple[Colour, ...] = (
    (0.78, 0.5, 0.26),
    (0.24, 0.22, 0.22),
    (0.55, 0.54, 0.54),
    (0.9, 0.86, 0.8),
    (0.45, 0.31, 0.2),
    (0.84, 0.72, 0.52),
)
_EYES: tuple[Colour, ...] = ((0.62, 0.5, 0.16), (0.42, 0.28, 0.12), (0.5, 0.58, 0.3))
_WHITE: Colour = (0.94, 0.91, 0.87)
_BLACK: Colour = (0.06, 0.05, 0.05)
_PINK: Colour = (0.85, 0.58, 0.56)


@dataclass(frozen=True, slots=True)
class _Animal:
    """What stays the same from photograph to photograph."""

    fur: Colour
    marks: Colour
    eye: Colour
    is_striped: bool
    is_bibbed: bool
    width: float
    length: float


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A portrait: the subject draws the animal; the shot draws room, pose, light and noise."""
    animal = _animal(subject)
    picture = _room(shot, side_px)
    # A turned head moves what is near to the camera further than what is far.
    turn = shot.uniform(-0.1, 0.1)
    grain = canvas.texture(shot, side_px, 45, octaves=2)
    coat = _coat(animal, subject, side_px)
    picture = _body(picture, animal, coat, grain)
    picture = {"cats": _cat, "dogs": _dog}[label](picture, animal, coat, grain, turn)
    picture = canvas.move(
        picture,
        turn_deg=shot.uniform(-14, 14),
        zoom=shot.uniform(0.85, 1.15),
        shift=(shot.uniform(-0.12, 0.12), shot.uniform(-0.1, 0.1)),
    )
    picture = canvas.expose(picture, shot.uniform(0.36, 0.54))
    picture = canvas.light(picture, shot, gain=0.0, slope=0.4, tint=0.08, vignette=0.25)
    return canvas.finish(picture, shot, noise=shot.uniform(0.008, 0.025), blur_px=0.5)


def _animal(rng: np.random.Generator) -> _Animal:
    fur, marks = rng.choice(len(_FURS), size=2, replace=False)
    return _Animal(
        fur=_FURS[fur],
        marks=_FURS[marks],
        eye=_EYES[rng.integers(len(_EYES))],
        is_striped=bool(rng.random() < 0.5),
        is_bibbed=bool(rng.random() < 0.4),
        width=float(rng.uniform(0.92, 1.08)),
        length=float(rng.uniform(0.94, 1.08)),
    )


def _room(rng: np.random.Generator, side_px: int) -> Picture:
    hues = rng.uniform(0.3, 0.7) + rng.normal(0, 0.09, size=(4, 3))
    walls: list[Colour] = [(red, green, blue) for red, green, blue in hues.tolist()]
    picture = canvas.fill(side_px, walls[0])
    picture = canvas.cover(picture, canvas.texture(rng, side_px, 3, octaves=2), walls[1])
    floor = rng.uniform(0.3, 0.9)
    below = canvas.polygon(side_px, [(-1, floor), (1, floor), (1, 1), (-1, 1)], blur_px=4)
    picture = canvas.cover(picture, below, walls[2])
    for _ in range(2):
        x, y = rng.uniform(-1, 1, size=2)
        wide, high = rng.uniform(0.1, 0.5, size=2)
        box = [
            (x - wide, y - high),
            (x + wide, y - high),
            (x + wide, y + high),
            (x - wide, y + high),
        ]
        picture = canvas.cover(picture, 0.8 * canvas.polygon(side_px, box, blur_px=5), walls[3])
    return picture


def _coat(animal: _Animal, rng: np.random.Generator, side_px: int) -> Picture:
    coat = canvas.fill(side_px, animal.fur)
    if animal.is_striped:
        waves = canvas.texture(rng, side_px, 9, octaves=2, stretch=2.5)
        stripes: Mask = np.clip((waves - 0.5) * 9, 0, 0.7).astype(np.float32)
    else:
        waves = canvas.texture(rng, side_px, 2, octaves=2)
        stripes = np.clip((waves - 0.62) * 20, 0, 1).astype(np.float32)
    return canvas.cover(coat, stripes, animal.marks)


def _furry(mask: Mask, grain: Mask) -> Mask:
    """The mask with a rim of tufts."""
    soft = canvas.blur(mask, mask.shape[0] / 70)
    tufts: Mask = np.clip((soft + 0.5 * (grain - 0.5) - 0.5) * 7 + 0.5, 0, 1)
    return tufts


def _lay(picture: Picture, mask: Mask, coat: Picture, grain: Mask, shade: float = 1.0) -> Picture:
    lit = coat * (shade * (0.78 + 0.44 * grain))[..., np.newaxis]
    return canvas.cover(picture, _furry(mask, grain), lit)


def _both(turn: float, points: list[Point]) -> list[list[Point]]:
    """An outline for the right of the picture, and its mirror image."""
    return [[(sign * x + turn, y) for x, y in points] for sign in (1.0, -1.0)]


def _body(picture: Picture, animal: _Animal, coat: Picture, grain: Mask) -> Picture:
    side_px = picture.shape[0]
    chest = canvas.ellipse(side_px, (0, 1.15), (0.62 * animal.width, 0.75), softness=0.05)
    picture = _lay(picture, chest, coat, grain, 0.85)
    if animal.is_bibbed:
        bib = canvas.ellipse(side_px, (0, 1.0), (0.26, 0.45), softness=0.3)
        picture = canvas.cover(picture, _furry(bib, grain), _WHITE)
    return picture


def _cat(picture: Picture, animal: _Animal, coat: Picture, grain: Mask, turn: float) -> Picture:
    side_px, wide = picture.shape[0], animal.width
    ears = _both(0.3 * turn, [(0.12, -0.4), (0.5 * wide, -0.92 * animal.length), (0.58, -0.12)])
    inner = _both(0.3 * turn, [(0.26, -0.44), (0.46 * wide, -0.78 * animal.length), (0.5, -0.3)])
    for ear in ears:
        picture = _lay(picture, canvas.polygon(side_px, ear), coat, grain, 0.9)
    for ear in inner:
        picture = canvas.cover(picture, 0.85 * canvas.polygon(side_px, ear, blur_px=2), _PINK)
    head = canvas.ellipse(side_px, (0.5 * turn, 0), (0.6 * wide, 0.52), softness=0.04)
    picture = _lay(picture, head, coat, grain)
    for sign in (1.0, -1.0):
        pad = canvas.ellipse(side_px, (1.3 * turn + sign * 0.1, 0.26), (0.15, 0.12), softness=0.3)
        picture = canvas.cover(picture, 0.55 * pad, _WHITE)
        picture = _eye(picture, (turn + sign * 0.26 * wide, -0.04), 0.125, animal.eye, pupil=0.032)
    nose = [(1.4 * turn - 0.065, 0.13), (1.4 * turn + 0.065, 0.13), (1.4 * turn, 0.2)]
    picture = canvas.cover(picture, canvas.polygon(side_px, nose, blur_px=1), (0.72, 0.4, 0.4))
    mouth = [[(x, 0.28), (x * 0.5, 0.31), (0.0, 0.2)] for x in (-0.13, 0.13)]
    mouth = [[(x + 1.4 * turn, y) for x, y in line] for line in mouth]
    picture = canvas.cover(picture, 0.8 * canvas.strokes(side_px, mouth, 0.016), _BLACK)
    hairs = [
        [
            (1.4 * turn + s * 0.13, 0.24 + 0.03 * k),
            (s * 0.45, 0.2 + 0.1 * k),
            (s * 0.8, 0.18 + 0.19 * k),
        ]
        for s in (1.0, -1.0)
        for k in (-1, 0, 1)
    ]
    return canvas.cover(picture, 0.85 * canvas.strokes(side_px, hairs, 0.01), _WHITE)


def _dog(picture: Picture, animal: _Animal, coat: Picture, grain: Mask, turn: float) -> Picture:
    side_px, wide = picture.shape[0], animal.width
    head = canvas.rounded(
        [
            *((-0.44 * wide, -0.5), (0.44 * wide, -0.5), (0.52 * wide, 0.0), (0.32, 0.5)),
            *((0.2, 0.72 * animal.length), (-0.2, 0.72 * animal.length), (-0.32, 0.5)),
            (-0.52 * wide, 0.0),
        ]
    )
    head = [(x + 0.5 * turn, y) for x, y in head]
    picture = _lay(picture, canvas.polygon(side_px, head), coat, grain)
    ear = [(0.26, -0.56), (0.5, -0.54), (0.74 * wide, -0.1), (0.72 * wide, 0.44 * animal.length)]
    ear += [(0.56 * wide, 0.5 * animal.length), (0.44 * wide, 0.0)]
    for outline in _both(0.3 * turn, canvas.rounded(ear)):
        flap = canvas.polygon(side_px, outline)
        rim = canvas.blur(flap, side_px / 30)
        picture = canvas.cover(picture, 0.5 * rim * (1 - flap), _BLACK)
        picture = _lay(picture, flap, coat, grain, 0.72)
    muzzle = canvas.ellipse(side_px, (1.3 * turn, 0.4 * animal.length), (0.25, 0.32), softness=0.35)
    picture = canvas.cover(picture, 0.55 * muzzle, _WHITE)
    for sign in (1.0, -1.0):
        picture = _eye(picture, (turn + sign * 0.23 * wide, -0.1), 0.085, animal.eye, pupil=0.05)
    low = 0.72 * animal.length
    tongue = canvas.ellipse(side_px, (1.4 * turn, low), (0.1, 0.15), softness=0.15)
    picture = canvas.cover(picture, tongue, _PINK)
    lines = [[(-0.22, 0.48), (-0.17, 0.6), (-0.08, 0.62), (0, 0.54)]]
    lines.append([(0, 0.54), (0.08, 0.62), (0.17, 0.6), (0.22, 0.48)])
    lines.append([(0, 0.3), (0, 0.54)])
    lines = [[(x + 1.4 * turn, y) for x, y in line] for line in lines]
    picture = canvas.cover(picture, 0.8 * canvas.strokes(side_px, lines, 0.02), _BLACK)
    nose = canvas.ellipse(side_px, (1.5 * turn, 0.25), (0.14, 0.1), softness=0.15)
    picture = canvas.cover(picture, nose, _BLACK)
    shine = canvas.ellipse(side_px, (1.5 * turn - 0.04, 0.21), (0.04, 0.02), softness=0.8)
    return canvas.cover(picture, 0.6 * shine, _WHITE)


def _eye(picture: Picture, centre: Point, radius: float, iris: Colour, *, pupil: float) -> Picture:
    side_px = picture.shape[0]
    lid = canvas.ellipse(side_px, centre, (radius * 1.2, radius * 1.05), softness=0.2)
    ball = canvas.ellipse(side_px, centre, (radius, radius * 0.88), softness=0.12)
    dark = canvas.ellipse(side_px, centre, (pupil, radius * 0.8 if pupil < 0.04 else pupil))
    glint = (centre[0] - 0.3 * radius, centre[1] - 0.35 * radius)
    picture = canvas.cover(picture, 0.9 * lid, _BLACK)
    picture = canvas.cover(picture, ball, iris)
    picture = canvas.cover(picture, dark, _BLACK)
    return canvas.cover(picture, canvas.ellipse(side_px, glint, (0.02, 0.02), softness=0.5), _WHITE)

"""Painted blood smears: red cells with pale centres, white cells with a purple nucleus, platelets.

A field has red cells whatever its label, in clumps too, and now and then one of the others. Specks
of stain are as dark as a nucleus and smaller than a platelet; they are marked as nothing.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour, Mask, Picture, Point
from pipelines.samples.pen import Marks, mix

_LABELS = ("rbc", "wbc", "platelet")
#: Of each, one more than a field may show that is not called after it.
_OTHERS = {"wbc": 3, "platelet": 3}
_FEWEST, _MOST = 4, 9
_PALE: Colour = (0.93, 0.9, 0.9)
_INK: Colour = (0.3, 0.24, 0.36)


def paint_marked(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> tuple[Image.Image, Marks]:
    """A field in which there is what the label says, with a box around each cell and platelet.

    The subject draws the smear, its stain and how large cells are; the shot draws the field.
    """
    if label not in _LABELS:
        raise KeyError(label)
    back: Colour = tuple((subject.uniform(0.74, 0.88) + subject.normal(0, 0.02, 3)).tolist())
    red = mix((0.8, 0.56, 0.52), (0.7, 0.5, 0.56), float(subject.random()))
    purple = mix((0.42, 0.22, 0.7), (0.3, 0.2, 0.6), float(subject.random()))
    size, pale = float(subject.uniform(0.17, 0.22)), float(subject.uniform(0.15, 0.8))
    picture = canvas.fill(side_px, back)
    picture = picture * (1 + 0.05 * (canvas.texture(subject, side_px, 4) - 0.5))[..., np.newaxis]
    n_of = {name: int(shot.integers(0, most)) for name, most in _OTHERS.items()}
    n_of["rbc"] = int(shot.integers(_FEWEST, _MOST + 1))
    n_of[label] = max(n_of[label], 1)
    taken: list[tuple[Point, float]] = []
    marks: Marks = []
    # White cells first, so that they have room; red ones may touch.
    for name in ("wbc", "platelet", "rbc"):
        for _ in range(n_of[name]):
            radius = (
                size * {"wbc": 1.75, "platelet": 0.36, "rbc": 1.0}[name] * shot.uniform(0.88, 1.15)
            )
            centre = _place(shot, taken, radius, lap=0.25 if name == "rbc" else 0.0)
            taken.append((centre, radius))
            if name == "rbc":
                picture, box = _red(picture, shot, centre, radius, red, pale)
            elif name == "wbc":
                picture, box = _white(picture, shot, centre, radius, back, purple)
            else:
                picture, box = _platelet(picture, shot, centre, radius, mix(purple, back, 0.35))
            marks.append((name, box))
    for _ in range(int(shot.integers(0, 3))):
        at: Point = (shot.uniform(-0.95, 0.95), shot.uniform(-0.95, 0.95))
        drop = canvas.ellipse(side_px, at, (0.02, 0.02), softness=0.6)
        picture = canvas.cover(picture, drop * np.float32(0.8), _INK)
    lit = canvas.light(picture, shot, gain=0.1, slope=0.2, tint=0.03, vignette=0.3)
    blur_px = float(shot.choice((0.4, 0.9)))
    return canvas.finish(lit, shot, noise=0.012, blur_px=blur_px), marks


def _place(
    shot: np.random.Generator, taken: list[tuple[Point, float]], radius: float, *, lap: float
) -> Point:
    """The first free place of a dozen, else the roomiest; ``lap``: share that may be covered."""
    best, most = (0.0, 0.0), -math.inf
    for _ in range(12):
        x, y = (float(value) for value in shot.uniform(-1.02, 1.02, 2) * (1 - 0.4 * radius))
        room = min(
            (math.hypot(x - a, y - b) - (1 - lap) * (radius + r) for (a, b), r in taken),
            default=1.0,
        )
        if room > most:
            best, most = (x, y), room
        if room >= 0:
            break
    return best


def _box(mask: Mask) -> tuple[float, ...]:
    """Around where a mask is, as shares of the side."""
    rows, columns = (np.flatnonzero((mask > 0.4).any(axis=axis)) for axis in (1, 0))
    ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return tuple(float(end) / len(mask) for end in ends)


def _red(
    picture: Picture, shot: np.random.Generator, at: Point, radius: float, red: Colour, pale: float
) -> tuple[Picture, tuple[float, ...]]:
    """A disc, thinner and so paler in the middle, with a dark rim."""
    side_px, turn = len(picture), float(shot.uniform(0, 180))
    radii = (radius, radius * float(shot.uniform(0.78, 1.0)))
    body = canvas.ellipse(side_px, at, radii, turn_deg=turn, softness=0.08)
    inner = canvas.ellipse(
        side_px, at, (0.9 * radii[0], 0.9 * radii[1]), turn_deg=turn, softness=0.25
    )
    hollow = canvas.ellipse(
        side_px, at, (0.42 * radii[0], 0.42 * radii[1]), turn_deg=turn, softness=0.9
    )
    picture = canvas.cover(picture, body * np.float32(0.85), mix(red, (0.4, 0.2, 0.25), 0.2))
    picture = canvas.cover(picture, inner * np.float32(0.9), red)
    return canvas.cover(picture, hollow * np.float32(pale), _PALE), _box(body)


def _white(
    picture: Picture,
    shot: np.random.Generator,
    at: Point,
    radius: float,
    back: Colour,
    purple: Colour,
) -> tuple[Picture, tuple[float, ...]]:
    """A pale, grainy body around a dark nucleus of one to four lobes."""
    side_px = len(picture)
    body = canvas.blob(shot, side_px, at, radius, roughness=0.06, blur_px=0.8)
    grain = 0.85 + 0.3 * canvas.texture(shot, side_px, 24, octaves=2)
    pale = np.clip(canvas.fill(side_px, mix(back, purple, 0.28)) * grain[..., np.newaxis], 0, 1)
    picture = canvas.cover(picture, body * np.float32(0.9), pale.astype(np.float32))
    n_lobes, first = int(shot.integers(1, 5)), float(shot.uniform(0, 6.3))
    nucleus = np.zeros_like(body)
    for lobe in range(n_lobes):
        angle, far = first + lobe * 1.5, radius * (0.1 if n_lobes == 1 else 0.4)
        place = (at[0] + far * math.cos(angle), at[1] + far * math.sin(angle))
        reach = radius * (0.72 if n_lobes == 1 else 0.38)
        each = canvas.blob(shot, side_px, place, reach, roughness=0.12, blur_px=0.8)
        nucleus = np.maximum(nucleus, each)
    dark = np.clip(canvas.fill(side_px, purple) * grain[..., np.newaxis], 0, 1)
    return canvas.cover(picture, nucleus * np.float32(0.95), dark.astype(np.float32)), _box(body)


def _platelet(
    picture: Picture, shot: np.random.Generator, at: Point, radius: float, colour: Colour
) -> tuple[Picture, tuple[float, ...]]:
    """A small rough patch with a darker middle."""
    side_px = len(picture)
    body = canvas.blob(shot, side_px, at, radius, roughness=0.25, blur_px=0.9)
    middle = canvas.ellipse(side_px, at, (0.5 * radius,) * 2, softness=0.8)
    picture = canvas.cover(picture, body * np.float32(0.75), colour)
    return canvas.cover(picture, middle * np.float32(0.5), mix(colour, _INK, 0.5)), _box(body)

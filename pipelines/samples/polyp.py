"""Painted colonoscopy: a pink wall with folds, in most frames a polyp, and what shows it.

Two functions of the same draws: `paint` gives the picture and `mask` what is true of it. A frame
without a polyp has the same folds, vessels, glints and bubbles.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from PIL import Image

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour, Mask, Picture, Point

#: Subjects without a polyp.
_NOTHING = 0.2
_GLINT: Colour = (1.0, 0.98, 0.95)
_VESSEL: Colour = (0.62, 0.2, 0.2)


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A frame.

    The subject draws the wall and the polyp; the shot draws where the camera is, light, glints,
    bubbles and noise.
    """
    return _frame(subject, shot, side_px)[0]


def mask(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """The polyp of the same frame: mode L, 255 where it is shown and 0 elsewhere."""
    return _frame(subject, shot, side_px)[1]


def _frame(
    subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> tuple[Image.Image, Image.Image]:
    wall: Colour = (subject.uniform(0.72, 0.86), subject.uniform(0.4, 0.5), 0.0)
    wall = (wall[0], wall[1], wall[1] * subject.uniform(0.78, 0.95))
    picture = canvas.fill(side_px, wall)
    mottle = canvas.texture(subject, side_px, 5) - 0.5
    picture = picture * (1 + 0.16 * mottle)[..., np.newaxis]
    picture = _vessels(_folds(picture, subject), subject)
    shown: Mask = np.zeros((side_px, side_px), dtype=np.float32)
    if subject.random() >= _NOTHING:
        picture, shown = _polyp(picture, wall, subject)
    camera = partial(
        canvas.move,
        turn_deg=shot.uniform(-35, 35),
        zoom=shot.uniform(0.85, 1.25),
        shift=(shot.uniform(-0.22, 0.22), shot.uniform(-0.22, 0.22)),
    )
    picture, shown = camera(picture), camera(np.dstack([shown] * 3))[..., 0]
    picture = _glints(picture, shown, shot)
    picture = canvas.light(picture, shot, gain=0.15, slope=0.35, tint=0.03, vignette=0.9)
    frame = canvas.finish(picture, shot, noise=shot.uniform(0.006, 0.015), blur_px=0.5)
    return frame, Image.fromarray(np.where(shown >= 0.5, 255, 0).astype(np.uint8))


def _shade(picture: Picture, mask: Mask, factor: float) -> Picture:
    shaded: Picture = np.clip(picture * (1 + mask * (factor - 1))[..., np.newaxis], 0, 1)
    return shaded


def _folds(picture: Picture, rng: np.random.Generator) -> Picture:
    """Arcs around a dark lumen, each bright above and dark below."""
    side_px = picture.shape[0]
    angle = rng.uniform(0, 2 * math.pi)
    far = rng.uniform(0.7, 1.1)
    lumen: Point = (far * math.cos(angle), far * math.sin(angle))
    x, y = canvas.axes(side_px)
    depth = np.hypot(x - lumen[0], y - lumen[1])
    picture = _shade(picture, np.clip(1 - depth / 0.75, 0, 1), 0.25)
    radius = rng.uniform(0.5, 0.65)
    while radius < 2.2:
        turn = np.arctan2(y - lumen[1], x - lumen[0])
        bent = depth + 0.05 * np.sin(turn * rng.integers(2, 5) + rng.uniform(0, 6))
        for offset, factor in ((0.0, 1.28), (0.09, 0.66)):
            ridge = np.exp(-(((bent - radius - offset) / 0.06) ** 2)).astype(np.float32)
            picture = _shade(picture, ridge, factor)
        radius += rng.uniform(0.34, 0.55)
    return picture


def _vessels(picture: Picture, rng: np.random.Generator) -> Picture:
    lines = []
    for _ in range(int(rng.integers(3, 7))):
        x, y, turn = *rng.uniform(-1, 1, size=2), rng.uniform(0, 2 * math.pi)
        line: list[Point] = [(x, y)]
        for _ in range(7):
            turn += rng.normal(0, 0.4)
            x, y = x + 0.11 * math.cos(turn), y + 0.11 * math.sin(turn)
            line.append((x, y))
        lines.append(line)
    side_px = picture.shape[0]
    drawn = canvas.strokes(side_px, lines, 0.016, blur_px=side_px / 200)
    return canvas.cover(picture, drawn * np.float32(0.3), _VESSEL)


def _polyp(picture: Picture, wall: Colour, rng: np.random.Generator) -> tuple[Picture, Mask]:
    """A rounded bump: redder, finely patterned, lit from above, in a shadow of its own."""
    side_px = picture.shape[0]
    centre: Point = (rng.uniform(-0.4, 0.4), rng.uniform(-0.4, 0.4))
    radius = rng.uniform(0.2, 0.5)
    state = rng.bit_generator.state
    body = canvas.blob(rng, side_px, centre, radius, roughness=0.18, blur_px=side_px / 130)
    # The same outline again, larger and lower: what the bump throws onto the wall.
    rng.bit_generator.state = state
    below: Point = (centre[0] + 0.05, centre[1] + 0.08)
    shadow = canvas.blob(rng, side_px, below, radius * 1.12, roughness=0.18, blur_px=side_px / 22)
    picture = _shade(picture, shadow, 0.55)
    x, y = canvas.axes(side_px)
    far = np.hypot(x - centre[0], y - centre[1]) / radius
    dome = np.sqrt(np.clip(1 - np.minimum(far, 1) ** 2, 0, 1)).astype(np.float32)
    pits = canvas.texture(rng, side_px, 26, octaves=2) - 0.5
    tilt = ((centre[1] - y) + (centre[0] - x) * 0.4) / radius
    shading = 0.72 + 0.36 * dome + 0.16 * np.clip(tilt, -1, 1) + 0.22 * pits
    red: Colour = (min(1.0, wall[0] * 1.08), wall[1] * 0.78, wall[2] * 0.8)
    bump = np.clip(canvas.fill(side_px, red) * shading[..., np.newaxis], 0, 1)
    glint: Point = (centre[0] - 0.3 * radius, centre[1] - 0.38 * radius)
    shine = canvas.ellipse(
        side_px, glint, (radius * 0.2, radius * 0.11), turn_deg=-25, softness=0.4
    )
    bump = canvas.cover(bump.astype(np.float32), shine * np.float32(0.9), _GLINT)
    return canvas.cover(picture, body, bump), body


def _glints(picture: Picture, shown: Mask, rng: np.random.Generator) -> Picture:
    """Wet light on the wall, and bubbles: rings that are no polyp."""
    side_px = picture.shape[0]
    for _ in range(int(rng.integers(2, 7))):
        place: Point = (rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9))
        radii = (rng.uniform(0.02, 0.07), rng.uniform(0.01, 0.03))
        shine = canvas.ellipse(side_px, place, radii, turn_deg=rng.uniform(0, 180), softness=0.5)
        picture = canvas.cover(picture, shine * np.float32(0.8), _GLINT)
    for _ in range(int(rng.integers(0, 4))):
        place = (rng.uniform(-0.9, 0.9), rng.uniform(-0.9, 0.9))
        radius = rng.uniform(0.04, 0.1)
        ring = canvas.ellipse(side_px, place, (radius, radius), softness=0.1)
        inner = canvas.ellipse(side_px, place, (radius * 0.8,) * 2, softness=0.3)
        picture = canvas.cover(picture, np.clip(ring - inner, 0, 1) * np.float32(0.35), _GLINT)
    return picture

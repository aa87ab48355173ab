"""Painted faces, live or as a photograph of a face that is held before the camera.

The photograph is a sheet with a pale rim in a hand's turn: flatter, duller, with the dots of a
printer and a shine across it. What lies behind, and how bright it all is, tells nothing.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipelines.samples import canvas, portrait
from pipelines.samples.canvas import Picture

_MEAN = 0.42


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A face before the camera; ``live`` or ``spoof``.

    The subject draws the person, the shot all else.
    """
    face = np.asarray(portrait.draw(subject, shot, side_px))
    picture = face.astype(np.float32) / np.float32(255)
    seen = {"live": _live, "spoof": _printed}[label](picture, shot)
    lit = canvas.light(canvas.expose(seen, _MEAN), shot, gain=0.25, slope=0.3)
    return canvas.finish(lit, shot, noise=0.012, blur_px=float(shot.uniform(0.2, 0.7)))


def _live(face: Picture, shot: np.random.Generator) -> Picture:
    # Nearer or farther, as far as a sheet is; both throw the same dice.
    return canvas.move(face, turn_deg=shot.uniform(-8, 8), zoom=shot.uniform(0.85, 1.0))


def _printed(face: Picture, shot: np.random.Generator) -> Picture:
    """A sheet with the face on it, over the room in which it is held."""
    side_px = face.shape[0]
    turn_deg, zoom = shot.uniform(-8, 8), shot.uniform(0.85, 1.0)
    x, y = canvas.axes(side_px)
    grey = face.mean(axis=2, keepdims=True)
    dull = (0.55 * face + 0.45 * grey) * np.float32(0.62) + np.float32(0.24)
    # Dots of a printer, turned as screens are, and the grain of the paper.
    pitch = side_px / shot.uniform(60, 90)
    lines = [
        np.sin((u + v) * np.float32(np.pi * side_px / pitch / 2)) for u, v in ((x, y), (x, -y))
    ]
    paper = canvas.texture(shot, side_px, side_px / 6, octaves=1) - np.float32(0.5)
    dull = dull + (0.05 * lines[0] * lines[1] + 0.08 * paper)[..., np.newaxis]
    shine = np.exp(-(((x * shot.uniform(-1, 1) + y + shot.uniform(-0.6, 0.6)) / 0.25) ** 2))
    dull = dull + (shot.uniform(0.05, 0.2) * shine)[..., np.newaxis]
    width, height = shot.uniform(0.66, 0.8), shot.uniform(0.74, 0.88)
    inside = _sheet(side_px, width - 0.06, height - 0.06)
    sheet = canvas.cover(canvas.fill(side_px, (0.9, 0.89, 0.85)), inside, dull.astype(np.float32))
    room = canvas.move(face, zoom=3.0, shift=(shot.uniform(2, 3), shot.uniform(2, 3)))
    held = canvas.cover(room * np.float32(0.8), _sheet(side_px, width, height), sheet)
    return canvas.move(held, turn_deg=turn_deg, zoom=zoom / 0.85)


def _sheet(side_px: int, width: float, height: float) -> canvas.Mask:
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    return canvas.polygon(side_px, corners)

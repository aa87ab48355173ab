"""Painted portraits of eighteen persons, each on several days.

A person keeps face and hair; the day draws the light, the shot pose, expression and background.
"""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from pipelines.samples import canvas, portrait

#: What is painted: the card of an embedding names no identities.
IDENTITIES = tuple(f"person{number:02d}" for number in range(18))
_MEAN = (0.42, 0.42, 0.42)


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """One of the persons.

    The label draws the person, the subject the light of a day, the shot all else.
    """
    if label not in IDENTITIES:
        raise KeyError(label)
    person = np.random.default_rng(zlib.crc32(label.encode()))
    face = np.asarray(portrait.draw(person, shot, side_px).convert("L"))
    picture = np.repeat(face[..., np.newaxis], 3, axis=2).astype(np.float32) / np.float32(255)
    lit = canvas.light(canvas.expose(picture, _MEAN), subject, gain=0.2, slope=0.5, tint=0.0)
    return (
        canvas.finish(canvas.light(lit, shot, tint=0.0), shot, noise=0.0)
        .convert("L")
        .convert("RGB")
    )

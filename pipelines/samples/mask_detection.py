"""Painted faces with a mask worn, not worn, or worn incorrectly.

Users' first complaint about such models is that a hand before the mouth counts as a mask: hands,
beards and scarves turn up in all classes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from pipelines.samples import face_masks, portrait
from pipelines.samples.pen import Pen
from pipelines.samples.portrait import Person


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A drawn person, with a mask where the label says so.

    The subject draws the person; the shot draws background, pose, light, mask, scarf, hand and
    noise. Where there is no mask, the hand is before the mouth.
    """

    def cover(pen: Pen, person: Person, yaw: float, side: int) -> None:
        face_masks.wear(label, pen, person, yaw, side, shot)

    is_bare = label == "without_mask"
    return portrait.draw(subject, shot, side_px, cover, is_hand_before_mouth=is_bare)

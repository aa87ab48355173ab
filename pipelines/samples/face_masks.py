"""Masks before a drawn face, for sample painters: worn well, worn incorrectly, or hanging.

Only painters call this.
"""

from __future__ import annotations

import numpy as np

from pipelines.samples import portrait
from pipelines.samples.canvas import Colour
from pipelines.samples.pen import Pen, mirrored, mix
from pipelines.samples.portrait import Person

_CORD: Colour = (0.92, 0.92, 0.9)
#: Where a mask sits: heights of the upper rim, lower rim, upper and lower corners; then its half
#: width as a share of the face's. (0, 0) is the nose bridge and y runs down: the tip of the nose is
#: at 0.13, the mouth at 0.29, the chin at 0.52.
_Seat = tuple[float, float, float, float, float]
_WORN: _Seat = (-0.03, 0.55, 0.06, 0.36, 0.84)
_BELOW_NOSE: _Seat = (0.20, 0.57, 0.21, 0.42, 0.80)
_ON_CHIN: _Seat = (0.40, 0.64, 0.36, 0.50, 0.70)
#: No seat on the face: it hangs from one ear.
_ONE_EAR: _Seat = (0.0, 0.0, 0.0, 0.0, 0.0)
#: By label of the cards.
_SEATS: dict[str, tuple[_Seat | None, ...]] = {
    "with_mask": (_WORN,),
    "without_mask": (None,),
    "mask_worn_incorrectly": (_BELOW_NOSE, _ON_CHIN, _ONE_EAR),
}


def wear(
    label: str, pen: Pen, person: Person, yaw: float, side: int, shot: np.random.Generator
) -> None:
    """What a label says, before the face of a person; nothing where it says that there is no mask.

    ``yaw``: by which the face is turned to a side; ``side``: of the ear on which a mask may hang,
    -1 or 1.

    Raises:
        KeyError: if the label says nothing of masks.
    """
    seats = _SEATS[label]
    seat = seats[int(shot.integers(len(seats)))]
    cloth, style = portrait.pick(shot, portrait.CLOTHS), int(shot.integers(3))
    if seat is _ONE_EAR:
        _draw_hanging_mask(pen, person, side, cloth)
    elif seat is not None:
        _draw_mask(pen, person.half_width, yaw, seat, cloth, style)


def _draw_mask(pen: Pen, w: float, yaw: float, seat: _Seat, cloth: Colour, style: int) -> None:
    """A mask with ear loops; style 0 has pleats, 1 a seam down the middle, 2 a printed pattern."""
    top, bottom, upper, lower, breadth = seat
    h, middle, mark = breadth * w, (top + bottom) / 2, mix(cloth, (0.45, 0.45, 0.48), 0.45)
    right = [(0.3 * h, top + 0.015), (h, upper), (0.98 * h, lower), (0.5 * h, bottom - 0.03)]
    for ear in (-1, 1):
        for height, hook in ((upper, -0.04), (lower, 0.1)):
            pen.line([(yaw + ear * h, height), (ear * (w + 0.01), hook)], 0.014, _CORD)
        pen.shade((yaw + ear * 0.9 * h, middle), (0.15 * h, (bottom - top) / 3), 0.88)
    pen.shape(mirrored([(0.02, top), *right, (0.02, bottom)], yaw), cloth)
    pen.shade((yaw, middle), (0.35 * h, (bottom - top) / 3), 1.06)
    if style == 1:
        pen.line([(yaw, top + 0.01), (yaw + 0.012, middle), (yaw, bottom - 0.01)], 0.014, mark)
        return
    for row, share in enumerate((0.28, 0.5, 0.72)):
        sides, centre = upper + share * (lower - upper), top + share * (bottom - top)
        if style == 0:
            ends = [(yaw - 0.96 * h, sides), (yaw, centre), (yaw + 0.96 * h, sides)]
            pen.line(ends, 0.012, mark)
        for step in range(-2, 3) if style == 2 else ():
            pen.oval((yaw + (step + 0.5 * (row % 2)) * 0.3 * h, centre), (0.022, 0.022), mark)


def _draw_hanging_mask(pen: Pen, person: Person, side: int, cloth: Colour) -> None:
    """A folded mask that hangs from one ear, its second loop free."""
    x, mark = side * (person.half_width - 0.02), mix(cloth, (0.45, 0.45, 0.48), 0.45)
    inner, outer = x - side * 0.13, x + side * 0.11
    for start in (inner, outer):
        pen.line([(side * (person.half_width + 0.02), -0.04), (start, 0.2)], 0.014, _CORD)
    pen.line([(inner, 0.6), (x, 0.8), (outer, 0.58)], 0.014, _CORD)
    pen.shape([(inner, 0.2), (outer, 0.18), (outer + side * 0.03, 0.58), (inner, 0.62)], cloth)
    for pleat in (inner + side * 0.07, inner + side * 0.15):
        pen.line([(pleat, 0.24), (pleat, 0.58)], 0.01, mark)

"""Painted faces with a mask worn, not worn, or worn incorrectly.

Users' first complaint about such models is that a hand before the mouth counts as a mask: hands,
beards and scarves turn up in all classes.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour
from pipelines.samples.pen import Pen, ellipse_points, ink, mirrored, mix
from pipelines.samples.people import (
    CLOTHS,
    DARK,
    Person,
    draw_features,
    draw_hair,
    draw_head,
    make_person,
    pick,
)

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
_SEATS: dict[str, tuple[_Seat | None, ...]] = {
    "with_mask": (_WORN,),
    "without_mask": (None,),
    "mask_worn_incorrectly": (_BELOW_NOSE, _ON_CHIN, _ONE_EAR),
}


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A drawn person, with a mask where the label says so.

    The subject draws the person; the shot draws background, pose, light, mask, scarf, hand and
    noise. Where there is no mask, the hand is before the mouth.
    """
    person = make_person(subject)
    turn_deg, zoom = shot.uniform(-12, 12), shot.uniform(0.85, 1.2)
    shift = (shot.uniform(-0.15, 0.15), shot.uniform(-0.02, 0.12))
    pen = Pen(_background(shot, side_px), turn_deg, zoom, shift)
    yaw, side = shot.uniform(-0.05, 0.05), int(shot.choice((-1, 1)))
    _draw_body(pen, person, shot)
    draw_head(pen, person)
    draw_features(pen, person, yaw, shot)
    draw_hair(pen, person)
    seats = _SEATS[label]
    seat = seats[int(shot.integers(len(seats)))]
    cloth, style = pick(shot, CLOTHS), int(shot.integers(3))
    if seat is _ONE_EAR:
        _draw_hanging_mask(pen, person, side, cloth)
    elif seat is not None:
        _draw_mask(pen, person.half_width, yaw, seat, cloth, style)
    if person.has_glasses:
        _draw_glasses(pen, yaw)
    if shot.random() < 0.2:
        _draw_hand(pen, person, side, is_before_mouth=label == "without_mask")
    lit = canvas.light(pen.picture(), shot, gain=0.2, slope=0.5, tint=0.06)
    return canvas.finish(lit, shot, noise=0.015, blur_px=float(shot.choice((0.0, 0.8))))


def _background(shot: np.random.Generator, side_px: int) -> Image.Image:
    """A blurred room at twice the size: two dull colours in patches, and a few square things."""
    small_px = side_px // 4
    tones = shot.uniform(0.2, 0.85, (5, 1)) + shot.uniform(-0.12, 0.12, (5, 3))
    patches = canvas.texture(shot, small_px, 2.5, octaves=2)[..., np.newaxis]
    colours = np.clip(tones[0] * (1 - patches) + tones[1] * patches, 0, 1)
    image = Image.fromarray(np.rint(colours * 255).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    for red, green, blue in tones[2 : 2 + int(shot.integers(0, 4))]:
        x, y = shot.uniform(-0.2, 0.9, 2) * small_px
        width, height = shot.uniform(0.1, 0.6, 2) * small_px
        draw.rectangle((x, y, x + width, y + height), fill=ink((red, green, blue), 0.6))
    return image.resize((2 * side_px, 2 * side_px), Image.Resampling.BILINEAR)


def _draw_body(pen: Pen, person: Person, shot: np.random.Generator) -> None:
    """Shoulders, hair behind, neck, and now and then a scarf."""
    w, end = person.half_width, person.hair_length
    pen.shape(mirrored([(0.3, 0.74), (1.05, 1.0), (1.5, 2.4)]), person.clothes)
    if end > 0:
        fall = [(0.12, -0.7), (w - 0.06, -0.56), (w + 0.12, 0.0), (w + 0.1, end), (0.2, end + 0.08)]
        pen.shape(mirrored(fall), mix(person.hair, (0, 0, 0), 0.3))
    pen.shape(mirrored([(0.21, 0.3), (0.27, 0.78), (0.1, 0.92)]), mix(person.skin, DARK, 0.25))
    scarf = pick(shot, CLOTHS)
    if shot.random() < 0.3:
        pen.shape(mirrored([(0.12, 0.73), (0.34, 0.66), (0.46, 0.9), (0.15, 1.06)]), scarf)
        for y in (0.82, 0.92):
            fold = [(-0.38, y - 0.06), (0, y + 0.02), (0.38, y - 0.06)]
            pen.line(fold, 0.015, mix(scarf, (0, 0, 0), 0.35))


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


def _draw_glasses(pen: Pen, yaw: float) -> None:
    frame = (0.08, 0.08, 0.1)
    for side in (-1, 1):
        x = yaw + side * 0.17
        pen.line(ellipse_points((x, -0.07), (0.125, 0.09)), 0.016, frame)
        pen.line([(x + side * 0.125, -0.08), (side * 0.4, -0.06)], 0.016, frame)
    pen.line([(yaw - 0.045, -0.08), (yaw + 0.045, -0.08)], 0.016, frame)


def _draw_hand(pen: Pen, person: Person, side: int, *, is_before_mouth: bool) -> None:
    """A hand before the mouth, or beside the cheek where it hides nothing that tells."""
    palm, tips = ((0.36, 0.44), (-0.16, 0.25)) if is_before_mouth else ((0.5, 0.56), (0.42, 0.08))
    skin, gap = mix(person.skin, (1, 0.85, 0.75), 0.12), mix(person.skin, DARK, 0.4)
    pen.line([(side * palm[0], palm[1]), (side * 0.75, 1.6)], 0.22, skin)
    pen.oval((side * palm[0], palm[1]), (0.15, 0.16), skin)
    dx, dy = tips[0] - palm[0], tips[1] - palm[1]
    for finger, reach in enumerate((0.9, 1.0, 0.97, 0.82)):
        off = (finger - 1.5) * 0.072 / float(np.hypot(dx, dy))
        start = (side * (palm[0] - dy * off), palm[1] + dx * off)
        end = (start[0] + side * dx * reach, start[1] + dy * reach)
        for width, colour in ((0.088, gap), (0.072, skin)):
            pen.line([start, end], width, colour)
            pen.oval(end, (width / 2, width / 2), colour)

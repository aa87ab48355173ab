"""A drawn person from the front, for sample painters: head and shoulders in a blurred room.

Only painters call this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour
from pipelines.samples.pen import Pen, ellipse_points, ink, mirrored, mix

_SKINS = ("f2ccb2", "e6b894", "cc9973", "a87554", "80573d", "5c3d2e")
_HAIRS = ("141212", "332117", "613d21", "b88f52", "8c8785")
_EYES = ("331f14", "594020", "406680")
#: Scarves and clothes share these with what may be worn before the face, so that a colour speaks
#: for no class.
CLOTHS = ("8cbfe0", "edf0f2", "1a1a1f", "8c2933", "40594d", "596199")
DARK: Colour = (0.1, 0.02, 0.0)


@dataclass(frozen=True, slots=True)
class Person:
    """What a person keeps from picture to picture; lengths in half sides."""

    skin: Colour
    hair: Colour
    clothes: Colour
    eyes: Colour
    half_width: float
    brow: float
    nose: float
    mouth: float
    hairline: float
    hair_length: float
    has_beard: bool
    has_glasses: bool


#: Draws what covers the face: with the pen, on a person, whose face is turned so far to a side.
Cover = Callable[[Pen, Person, float, int], None]


def make_person(subject: np.random.Generator) -> Person:
    """Somebody, drawn by lot."""
    jitter = subject.uniform(-0.03, 0.03)
    return Person(
        skin=mix(pick(subject, _SKINS), (1, 0.75, 0.6), 0.03 + jitter),
        hair=pick(subject, _HAIRS),
        clothes=mix(pick(subject, CLOTHS), (0.5, 0.5, 0.5), subject.uniform(0, 0.4)),
        eyes=pick(subject, _EYES),
        half_width=subject.uniform(0.36, 0.42),
        brow=subject.uniform(0.018, 0.035),
        nose=subject.uniform(0.055, 0.085),
        mouth=subject.uniform(0.11, 0.16),
        hairline=subject.uniform(-0.46, -0.33),
        hair_length=float(subject.choice((-0.05, -0.05, 0.35, 0.75))),
        has_beard=bool(subject.random() < 0.3),
        has_glasses=bool(subject.random() < 0.25),
    )


def pick(rng: np.random.Generator, palette: Sequence[str]) -> Colour:
    """One of some colours, which are written as six hexadecimal digits."""
    red, green, blue = bytes.fromhex(palette[int(rng.integers(len(palette)))])
    return (red / 255, green / 255, blue / 255)


def draw(
    subject: np.random.Generator,
    shot: np.random.Generator,
    side_px: int,
    cover: Cover | None = None,
    *,
    is_hand_before_mouth: bool = False,
) -> Image.Image:
    """A person.

    ``subject`` draws the person; ``shot`` background, pose, light, scarf, hand and noise; ``cover``
    is called before glasses and hand; ``is_hand_before_mouth``: where there is a hand.
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
    if cover is not None:
        cover(pen, person, yaw, side)
    if person.has_glasses:
        _draw_glasses(pen, yaw)
    if shot.random() < 0.2:
        _draw_hand(pen, person, side, is_before_mouth=is_hand_before_mouth)
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


def draw_head(pen: Pen, person: Person) -> None:
    """Head and ears, and a beard where there is one."""
    w, skin = person.half_width, person.skin
    pen.shade((0, 0.6), (0.2, 0.08), 0.72)
    for side in (-1, 1):
        pen.oval((side * (w + 0.01), 0.03), (0.055, 0.1), mix(skin, DARK, 0.15))
        pen.shade((side * 0.9 * w, 0.18), (0.05, 0.24), 0.84)
    jaw = [(0.82 * w, -0.46), (w, -0.15), (0.97 * w, 0.12), (0.76 * w, 0.36), (0.34 * w, 0.5)]
    pen.shape(mirrored([(0.02, -0.62), *jaw, (0.02, 0.525)]), skin)
    if person.has_beard:
        edge = [(0.3 * w, 0.19), (0.62 * w, 0.24), (0.97 * w, 0.08), (0.96 * w, 0.16)]
        pen.shape(mirrored([*edge, (0.77 * w, 0.37), (0.35 * w, 0.53)]), person.hair, 0.82)


def draw_features(pen: Pen, person: Person, yaw: float, shot: np.random.Generator) -> None:
    """Eyes, brows, nose and mouth."""
    gaze, smile, opening = shot.uniform((-0.02, -0.015, -0.03), (0.02, 0.035, 0.03))
    dark, tip, n, m = mix(person.skin, DARK, 0.45), 1.4 * yaw, person.nose, person.mouth
    for side in (-1, 1):
        x = yaw + side * 0.165
        pen.line([(x - 0.09, -0.17), (x, -0.2), (x + 0.09, -0.17)], person.brow, person.hair)
        pen.oval((x, -0.08), (0.072, 0.036), (0.95, 0.94, 0.92))
        pen.oval((x + gaze, -0.08), (0.034, 0.034), person.eyes)
        pen.oval((x + gaze, -0.08), (0.016, 0.016), (0.03, 0.03, 0.03))
        pen.line([(x - 0.078, -0.075), (x, -0.12), (x + 0.078, -0.075)], 0.014, dark)
        pen.oval((tip + side * 0.6 * n, 0.145), (0.02, 0.012), dark)
        pen.shade((tip + side * n, 0.1), (0.025, 0.05), 0.81)
    pen.line([(tip - n, 0.12), (tip, 0.175), (tip + n, 0.12)], 0.012, mix(person.skin, dark, 0.8))
    pen.shade((tip, 0.05), (0.03, 0.11), 1.14)
    pen.shade((yaw, -0.3), (0.2, 0.1), 1.08)
    corner, low = 0.29 - smile, 0.335 + max(0.0, opening)
    lips = [(0.06 * m, 0.27), (0.3 * m, 0.262), (m, corner), (0.4 * m, low)]
    pen.shape(mirrored(lips, yaw), mix(person.skin, (0.7, 0.2, 0.22), 0.5))
    pen.line([(yaw - m, corner), (yaw, 0.295), (yaw + m, corner)], 0.012 + low - 0.335, dark)


def draw_hair(pen: Pen, person: Person) -> None:
    """Hair of the crown, around the face."""
    w, line = person.half_width, person.hairline
    rim = [(0.3 * w, line), (0.6 * w, line), (0.9 * w, -0.2), (w + 0.02, -0.02), (w + 0.05, -0.35)]
    # From the fringe outwards and back over the crown.
    pen.shape(mirrored([*rim, (0.62 * w, -0.66), (0.1 * w, -0.72)]), person.hair)
    pen.line([(-0.3, -0.55), (-0.05, -0.64), (0.2, -0.6)], 0.02, mix(person.hair, (1, 1, 1), 0.2))


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

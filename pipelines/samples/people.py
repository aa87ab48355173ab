"""Painted people, as far as the neck: for the painters of all tasks that show somebody.

The middle of a face is the bridge of its nose: the tip of the nose is at 0.13, the mouth at 0.29,
the chin at 0.52, and the crown at -0.72.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.samples.canvas import Colour
from pipelines.samples.pen import Pen, mirrored, mix

_SKINS = ("f2ccb2", "e6b894", "cc9973", "a87554", "80573d", "5c3d2e")
_HAIRS = ("141212", "332117", "613d21", "b88f52", "8c8785")
_EYES = ("331f14", "594020", "406680")
#: Masks, scarves and clothes share these, so that a colour speaks for no class.
CLOTHS = ("8cbfe0", "edf0f2", "1a1a1f", "8c2933", "40594d", "596199")
#: Mixed into skin where it lies in shadow.
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
    """One of some colours, each in six hexadecimal digits."""
    red, green, blue = bytes.fromhex(palette[int(rng.integers(len(palette)))])
    return (red / 255, green / 255, blue / 255)


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

"""Painted radiographs of weld seams with a crack, lack of penetration, pores or no defect.

A radiograph is the subject: plate, seam and ripples are its own. Film, exposure and grain are drawn
alike in all classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.canvas import Mask, Point


@dataclass(frozen=True, slots=True)
class _View:
    """Where the seam lies in one picture. Seam coordinates: u runs along it, v across it.

    Attributes:
        side_px: side of the picture.
        turn: clockwise, in radians.
        offset: of the seam's centre line from the picture's centre, in half sides.
        half_width: of the seam, in half sides.
    """

    side_px: int
    turn: float
    offset: float
    half_width: float

    @property
    def unit_px(self) -> float:
        """Pixels that stand for one pixel of a picture of 320 px, at which widths are given."""
        return self.side_px / 320

    def along_across(self) -> tuple[Mask, Mask]:
        """Seam coordinates of each pixel: u, v."""
        x, y = canvas.axes(self.side_px)
        cos, sin = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        return x * cos + y * sin, y * cos - x * sin - np.float32(self.offset)

    def to_px(self, u: float, v: float) -> Point:
        """The pixel coordinates of a place on the seam."""
        v += self.offset
        x = u * np.cos(self.turn) - v * np.sin(self.turn)
        y = u * np.sin(self.turn) + v * np.cos(self.turn)
        return (float((x + 1) / 2 * self.side_px), float((y + 1) / 2 * self.side_px))


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A radiograph in grey: a plate, its seam, marks of the film, and the defect if there is one.

    The subject draws what the pictures of one radiograph share: plate, seam, ripples; the shot
    draws the cut-out, the exposure, the marks of the film, the grain and the defect. Thicker metal
    is lighter, as on film seen against a lamp, so gaps in it are darker.
    """
    half_width = subject.uniform(0.26, 0.42)
    turn = subject.uniform(-0.35, 0.35) + shot.uniform(-0.1, 0.1)
    view = _View(side_px, float(turn), shot.uniform(-0.3, 0.3), half_width)
    film = _metal(view, subject, shot)
    film = film * _exposure(side_px, shot) + _film_marks(view, shot)
    # A gap takes away a share of the film's own grey, so that it shows on light and dark films.
    film = film * (1 - shot.uniform(0.45, 0.7) * _DEFECTS[label](view, shot))
    return _develop(film, shot)


def _metal(view: _View, subject: np.random.Generator, shot: np.random.Generator) -> Mask:
    """Plate and seam: a lighter bead with rippled surface, wavy edges and a faint undercut."""
    u, v = view.along_across()
    u = u + np.float32(shot.uniform(0, 4))
    wave = np.float32(0.02) * np.sin(
        u * np.float32(subject.uniform(5, 9)) + np.float32(subject.uniform(0, 6))
    )
    depth = (np.abs(v + wave) - np.float32(view.half_width)) / np.float32(0.025)
    bead = 1 / (1 + np.exp(np.clip(depth, -30, 30)))
    crown = np.clip(1 - (v / np.float32(view.half_width)) ** 2, 0, 1)
    pitch = np.float32(subject.uniform(22, 34))
    ripples = np.sin((u + np.float32(subject.uniform(0.8, 1.6)) * v**2) * pitch)
    relief = np.float32(subject.uniform(0.008, 0.03)) * ripples
    plate = np.float32(subject.uniform(0.36, 0.5))
    height = np.float32(subject.uniform(0.12, 0.2)) * (np.float32(0.6) + np.float32(0.4) * crown)
    undercut = np.float32(subject.uniform(0, 0.05)) * np.exp(-((depth - 1) ** 2) / 4)
    mottle = canvas.texture(shot, view.side_px, 3, octaves=2) - np.float32(0.5)
    metal: Mask = plate + bead * (height + relief) - undercut + np.float32(0.12) * mottle
    return metal


def _exposure(side_px: int, shot: np.random.Generator) -> Mask:
    """Relative brightness: over- or under-exposed, with a slope across the film."""
    x, y = canvas.axes(side_px)
    angle = shot.uniform(0, 2 * np.pi)
    slope = np.float32(shot.uniform(0, 0.25))
    lean = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    field: Mask = np.float32(shot.uniform(0.8, 1.25)) + slope * lean
    return field


def _film_marks(view: _View, shot: np.random.Generator) -> Mask:
    """Brightness that is no metal, equal in all classes: scratch, wires of a gauge, arrow, dust."""
    image = Image.new("L", (view.side_px, view.side_px))
    draw = ImageDraw.Draw(image)
    side = shot.choice((-1, 1))
    beside = view.half_width + 0.12
    if shot.random() < 0.35:
        start = (shot.uniform(-1.2, 0.2), side * (beside + shot.uniform(0, 0.3)))
        end = (start[0] + shot.uniform(0.3, 1.2), side * (beside + shot.uniform(0, 0.3)))
        scratch = [view.to_px(*start), view.to_px(*end)]
        draw.line(scratch, fill=90, width=max(1, round(view.unit_px)))
    if shot.random() < 0.35:
        place = shot.uniform(-0.9, 0.2)
        for wire in range(5):
            u = place + 0.16 * wire
            ends = [view.to_px(u, -view.half_width - 0.35), view.to_px(u, view.half_width + 0.35)]
            draw.line(ends, fill=34, width=max(1, round((4 - 0.6 * wire) * view.unit_px)))
    if shot.random() < 0.35:
        u, v = shot.uniform(-0.7, 0.7), -side * (beside + 0.18)
        corners = [(u, v + side * 0.1), (u - 0.07, v - side * 0.08), (u + 0.07, v - side * 0.08)]
        draw.polygon([view.to_px(*corner) for corner in corners], fill=110)
    for _ in range(int(shot.integers(0, 6))):
        x, y = shot.uniform(0, view.side_px, size=2)
        radius = shot.uniform(1, 2.5) * view.unit_px
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=70)
    return canvas.soften(image, 0.8 * view.unit_px)


def _crack(view: _View, shot: np.random.Generator) -> Mask:
    """A thin jagged line, along the seam or across it, thinning out to its ends."""
    n_steps = int(shot.integers(14, 22))
    is_across = shot.random() < 0.35
    room = view.half_width * 0.8
    length = 2 * room * shot.uniform(0.75, 1.0) if is_across else shot.uniform(0.9, 1.5)
    run = np.linspace(-length / 2, length / 2, n_steps)
    wander = np.cumsum(shot.normal(0, 0.3 * length / n_steps + 0.008, n_steps))
    wander -= wander.mean()
    if is_across:
        path = list(zip(shot.uniform(-0.55, 0.55) + wander, run, strict=True))
    else:
        # Off the centre line as often as on it: place alone must not tell crack from lack of
        # penetration.
        drift = np.clip(shot.uniform(-0.5, 0.5) * room + wander, -room, room)
        path = list(zip(shot.uniform(-0.35, 0.35) + run, drift, strict=True))
    return _jagged(view, path, shot)


def _jagged(view: _View, path: list[Point], shot: np.random.Generator) -> Mask:
    image = Image.new("L", (2 * view.side_px, 2 * view.side_px))
    draw = ImageDraw.Draw(image)
    points = [view.to_px(u, v) for u, v in path]
    widest = shot.uniform(2.2, 3.6) * view.unit_px
    for step, (start, end) in enumerate(pairwise(points)):
        share = np.sin(np.pi * (step + 0.7) / len(points)) ** 0.6
        width_px = max(1, round(2 * widest * share * shot.uniform(0.7, 1.2)))
        draw.line([start[0] * 2, start[1] * 2, end[0] * 2, end[1] * 2], fill=255, width=width_px)
    return canvas.soften(image.reduce(2), 0.5 * view.unit_px)


def _lack_of_penetration(view: _View, shot: np.random.Generator) -> Mask:
    """A straight dark band along the middle of the seam: the root that was not filled."""
    u, v = view.along_across()
    uneven = canvas.texture(shot, view.side_px, 12, octaves=2) - np.float32(0.5)
    half = np.float32(shot.uniform(0.018, 0.05)) * (1 + np.float32(0.6) * uneven)
    middle = np.float32(shot.uniform(-0.05, 0.05))
    band = np.clip((half - np.abs(v - middle)) / np.float32(0.02) + np.float32(0.5), 0, 1)
    start = shot.uniform(-1.1, -0.5)
    stop = start + shot.uniform(1.0, 2.0)
    ends = np.clip((u - start) / 0.06, 0, 1) * np.clip((stop - u) / 0.06, 0, 1)
    patchy = canvas.texture(shot, view.side_px, 8, octaves=1)
    gap: Mask = (band * ends * (np.float32(0.65) + np.float32(0.35) * patchy)).astype(np.float32)
    return gap


def _porosity(view: _View, shot: np.random.Generator) -> Mask:
    """Round pores, strewn along the seam or in a nest."""
    image = Image.new("L", (2 * view.side_px, 2 * view.side_px))
    draw = ImageDraw.Draw(image)
    spread = shot.choice((0.18, 0.6))
    centre = shot.uniform(-0.4, 0.4)
    room = view.half_width * 0.8
    for _ in range(int(shot.integers(7, 20))):
        v = shot.uniform(-room, room)
        x, y = view.to_px(centre + shot.normal(0, spread), v)
        radius = shot.uniform(0.014, 0.045) * view.side_px
        box = (2 * x - radius, 2 * y - radius, 2 * x + radius, 2 * y + radius)
        draw.ellipse(box, fill=int(shot.integers(120, 256)))
    return canvas.soften(image.reduce(2), view.unit_px)


def _no_defect(view: _View, shot: np.random.Generator) -> Mask:
    """Nothing; the generator is left alone."""
    return np.zeros((view.side_px, view.side_px), dtype=np.float32)


_DEFECTS: dict[str, Callable[[_View, np.random.Generator], Mask]] = {
    "crack": _crack,
    "lack_of_penetration": _lack_of_penetration,
    "no_defect": _no_defect,
    "porosity": _porosity,
}


def _develop(film: Mask, shot: np.random.Generator) -> Image.Image:
    """The film with grain, in 8 bits; grain is coarser than a pixel."""
    strength = np.float32(shot.uniform(0.03, 0.09))
    grain = shot.standard_normal(film.shape, dtype=np.float32)
    grain = (grain + np.roll(grain, 1, axis=0) + np.roll(grain, 1, axis=1)) / np.float32(3)
    grey = np.rint(np.clip(film + strength * grain, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")

"""Painted photographs of plates with beads: even ones, uneven ones, and places to look at.

A flaw lies on even and on uneven beads alike, and spatter beside them. Metal, table and light are
drawn alike for all classes. Now and then a plate bears no bead at all.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour
from pipelines.samples.pen import Marks, Pen, ink, mix
from pipelines.samples.portrait import pick

_LABELS = ("bad_weld", "good_weld", "defect")
_TABLES = ("d9d6cf", "b9bcc0", "8f8a82", "5d6268", "cfc8ba")
_PLATES = ("6c7076", "8a8d90", "7d5f4c", "55504d", "9a9c9b")
_BURNT: Colour = (0.16, 0.12, 0.1)
_BRIGHT: Colour = (0.93, 0.93, 0.9)
_MAX_PLATES = 3
_EMPTY_SHARE = 0.05
_FLAW_SHARE = 0.35


def paint_marked(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> tuple[Image.Image, Marks]:
    """Plates of which one is as the label says, with the boxes of beads and of flaws.

    The subject draws the table, the metal and which way the plates lie; the shot draws the beads,
    their flaws, light and camera.
    """
    if label not in _LABELS:
        raise KeyError(label)
    scene = Image.new("RGB", (2 * side_px, 2 * side_px), ink(pick(subject, _TABLES))[:3])
    _strew(ImageDraw.Draw(scene, "RGBA"), subject, 2 * side_px)
    metal, lies = pick(subject, _PLATES), float(subject.choice((0, 90)))
    pen = Pen(scene, 0.0, 1.0, (0.0, 0.0))
    n = int(shot.integers(1, _MAX_PLATES + 1))
    is_bare = bool(shot.random() < _EMPTY_SHARE)
    off, marked = float(shot.uniform(-0.12, 0.12)), int(shot.integers(n))
    marks: Marks = []
    for number, across in enumerate((np.arange(n) - (n - 1) / 2) * 0.62 + off):
        along = float(shot.uniform(-0.15, 0.15))
        shift = (along, float(across)) if lies == 0 else (float(across), along)
        plate = pen.beside(lies + float(shot.uniform(-3, 3)), 1.0, shift)
        # What a label asks is on one of the plates, and the others are as the lot says.
        asked = label if number == marked else ""
        is_good = asked == "good_weld" or (asked != "bad_weld" and bool(shot.random() < 0.5))
        has_flaw = bool(shot.random() < _FLAW_SHARE) or asked == "defect"
        half = float(shot.uniform(0.6, 0.85))
        _draw_plate(plate, half + 0.08, metal, shot)
        if not is_bare:
            marks += _draw_bead(plate, half, shot, is_good=is_good, has_flaw=has_flaw)
    lit = canvas.light(pen.picture(), shot, gain=0.25, slope=0.4, tint=0.06)
    blur_px = float(shot.choice((0.0, 0.6)))
    return canvas.finish(lit, shot, noise=0.02, blur_px=blur_px), marks


def _strew(draw: ImageDraw.ImageDraw, subject: np.random.Generator, side: int) -> None:
    """Scratches and stains of a table."""
    for _ in range(int(subject.integers(4, 12))):
        x, y, dx, dy = (subject.uniform((0, 0, -0.2, -0.2), (1, 1, 0.2, 0.2)) * side).tolist()
        draw.line((x, y, x + dx, y + dy), fill=ink((0.3, 0.28, 0.26), 0.3), width=side // 150)


def _draw_plate(pen: Pen, half: float, metal: Colour, shot: np.random.Generator) -> None:
    """Metal with an edge, grinding marks and, where the bead will be, the colours of heat."""
    pen.line([(-half, 0.02), (half, 0.02)], 0.5, mix(metal, (0, 0, 0), 0.55))
    pen.line([(-half, 0.0), (half, 0.0)], 0.46, metal)
    for y in shot.uniform(-0.21, 0.21, 7).tolist():
        tone = mix(metal, (1, 1, 1), float(shot.uniform(-0.1, 0.2)))
        pen.line([(-half, y), (half, y + float(shot.uniform(-0.02, 0.02)))], 0.008, tone)
    pen.line([(-half, 0.0), (half, 0.0)], 0.3, mix(metal, (0.35, 0.26, 0.3), 0.3))


def _draw_bead(
    pen: Pen, half: float, shot: np.random.Generator, *, is_good: bool, has_flaw: bool
) -> Marks:
    """Ripples from one end to the other: of one width and pitch, or of many; and a flaw."""
    width = float(shot.uniform(0.075, 0.11))
    steel = mix((0.5, 0.5, 0.52), _BRIGHT, float(shot.uniform(0, 0.4)))
    dark = mix(steel, _BURNT, 0.65)
    at, reach = -half, 0.0
    while at < half:
        rough = 0.0 if is_good else float(shot.uniform(-0.5, 0.5))
        v = 0.35 * width * rough if is_good else float(shot.uniform(-0.35, 0.35)) * width
        h = width * (1 + rough)
        reach = max(reach, abs(v) + h)
        pen.oval((at, v), (0.045, h), dark)
        pen.oval((at + 0.012, v), (0.036, 0.86 * h), mix(steel, _BURNT, max(0.0, 0.5 * rough)))
        pen.line(
            [(at + 0.03, v - 0.6 * h), (at + 0.042, v), (at + 0.03, v + 0.5 * h)], 0.01, _BRIGHT
        )
        # An uneven bead has lumps and gaps.
        at += 0.045 if is_good else float(shot.uniform(0.02, 0.11))
    name = "good_weld" if is_good else "bad_weld"
    marks: Marks = [(name, pen.box(-half - 0.045, -reach, half + 0.045, reach))]
    if has_flaw:
        marks.append(("defect", _draw_flaw(pen, half, width, shot)))
    return marks


def _draw_flaw(pen: Pen, half: float, width: float, shot: np.random.Generator) -> tuple[float, ...]:
    """Pores, a hollow, or spatter beside the bead; gives its box."""
    u, kind = float(shot.uniform(-0.8, 0.8)) * half, int(shot.integers(3))
    if kind == 1:
        pen.oval((u, 0.0), (0.1, 0.8 * width), _BURNT)
        pen.oval((u + 0.015, 0.015), (0.07, 0.5 * width), (0.05, 0.04, 0.04))
        return pen.box(u - 0.12, -width, u + 0.12, width)
    v, tone = (
        (0.0, (0.05, 0.04, 0.04)) if kind == 0 else (0.17 * float(shot.choice((-1, 1))), _BRIGHT)
    )
    for du, dv in shot.uniform((-0.09, -0.055), (0.09, 0.055), (6, 2)).tolist():
        size = float(shot.uniform(0.014, 0.028))
        pen.oval((u + du, v + dv), (1.3 * size, 1.3 * size), _BURNT)
        pen.oval((u + du, v + dv), (size, size), tone)
    return pen.box(u - 0.12, v - 0.085, u + 0.12, v + 0.085)

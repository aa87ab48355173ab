"""Painted frontal chest radiographs.

They show a one-sided lobar consolidation (pneumonia), patchy opacities at the outer rim of both
lungs (covid19) or clear lungs. Everything else is drawn alike in all classes, while in the real set
size and mode alone tell COVID-19.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.samples import canvas
from pipelines.samples.canvas import Mask, Point

#: Left half of the image: the patient's right lung, hilum at x = -0.1, from apex clockwise.
_LUNG: tuple[Point, ...] = (
    (-0.24, -0.72),
    (-0.14, -0.50),
    (-0.13, -0.10),
    (-0.15, 0.30),
    (-0.22, 0.42),
    (-0.36, 0.36),
    (-0.52, 0.44),
    (-0.62, 0.62),
    (-0.66, 0.40),
    (-0.64, 0.00),
    (-0.54, -0.38),
    (-0.40, -0.66),
)


@dataclass(frozen=True, slots=True)
class _Chest:
    """One patient: both lungs as masks, and what is drawn around them."""

    right: Mask
    left: Mask
    width: float
    height: float


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A radiograph in grey.

    The subject draws the patient's anatomy and where the disease sits; the shot draws position,
    exposure, wires and noise.
    """
    density, chest = _anatomy(subject, side_px)
    disease = _DISEASES[label]
    if disease is not None:
        density = density + disease(chest, subject, side_px)
    density = density + _wires(shot, side_px)
    grey = density - density.min()
    grey = grey / max(float(grey.max()), 1e-6)
    picture = np.repeat(grey[..., np.newaxis], 3, axis=2).astype(np.float32)
    picture = canvas.move(
        picture,
        turn_deg=shot.uniform(-5, 5),
        zoom=shot.uniform(0.98, 1.15),
        shift=(shot.uniform(-0.06, 0.06), shot.uniform(-0.06, 0.06)),
    )
    picture = canvas.light(picture, shot, gain=0.0, slope=0.3, tint=0.0, vignette=0.3)
    picture = canvas.expose(picture, shot.uniform(0.4, 0.6))
    noisy = canvas.finish(picture, shot, noise=shot.uniform(0.01, 0.03), blur_px=0.5)
    return noisy.convert("L").convert("RGB")


def _anatomy(rng: np.random.Generator, side_px: int) -> tuple[Mask, _Chest]:
    x, y = canvas.axes(side_px)
    width, height = rng.uniform(0.95, 1.2), rng.uniform(0.92, 1.12)
    chest = _Chest(
        right=_lung(rng, side_px, width, height, mirrored=False),
        left=_lung(rng, side_px, width, height, mirrored=True),
        width=width,
        height=height,
    )
    lungs = np.maximum(chest.right, chest.left)
    torso = canvas.rounded(
        [
            *((-0.16, -1.2), (-0.2, -0.86), (-0.75, -0.74), (-1.05, -0.5), (-0.86 * width, 0.1)),
            *((-0.84 * width, 1.2), (0.84 * width, 1.2), (0.86 * width, 0.1), (1.05, -0.5)),
            *((0.75, -0.74), (0.2, -0.86), (0.16, -1.2)),
        ]
    )
    body = canvas.polygon(side_px, torso, blur_px=side_px / 60)
    density = body * (0.58 - 0.1 * np.abs(x) + 0.24 * np.clip(y + 0.1, 0, 0.8))
    density = density - (0.36 + 0.24 * np.clip(y + 0.1, 0, 0.8)) * lungs * rng.uniform(0.9, 1.1)
    density = density + 0.05 * (canvas.texture(rng, side_px, 14, octaves=3) - 0.5) * body
    density = density + _bones(rng, x, y, width, height) * body
    density = density + _vessels(rng, side_px, width, height) * lungs
    heart = canvas.rounded(
        [
            *((-0.13, -0.3), (0.1, -0.34), (0.2, -0.12), (0.42 * width, 0.3)),
            *((0.36 * width, 0.52), (0, 0.56), (-0.2, 0.46), (-0.22, 0.15)),
        ]
    )
    middle = canvas.polygon(side_px, heart, blur_px=side_px / 50)
    stem = canvas.ellipse(side_px, (0, -0.3), (0.15, 0.8), softness=0.5)
    density = density + np.maximum(0.24 * middle, 0.15 * stem) * np.clip(1.1 - y, 0, 0.6) / 0.6
    windpipe = canvas.ellipse(side_px, (0, -0.68), (0.045, 0.34), softness=0.7)
    bubble = canvas.ellipse(
        side_px,
        (0.4 * width, rng.uniform(0.66, 0.8)),
        (rng.uniform(0.08, 0.16), 0.08),
        softness=0.9,
    )
    density = density - 0.1 * windpipe - 0.12 * bubble
    density = density + _clavicles(rng, side_px, width)
    return density.astype(np.float32), chest


def _lung(
    rng: np.random.Generator, side_px: int, width: float, height: float, *, mirrored: bool
) -> Mask:
    sign = -1.0 if mirrored else 1.0
    # The dome of the left diaphragm stands lower: the liver lies on the right.
    drop = rng.uniform(0.02, 0.1) if mirrored else 0.0
    points = [
        (
            sign * (px * width + rng.normal(0, 0.012)),
            py * height + (drop if py > 0.3 else 0.0) + rng.normal(0, 0.012),
        )
        for px, py in _LUNG
    ]
    return canvas.polygon(side_px, canvas.rounded(points), blur_px=side_px / 90)


def _bones(rng: np.random.Generator, x: Mask, y: Mask, width: float, height: float) -> Mask:
    # Triangle waves instead of cosines: exact arithmetic gives the same bytes on every machine.
    out = np.abs(x) / width
    step = rng.uniform(0.165, 0.19) * height
    offset = rng.uniform(0, step)
    behind = _wave((y - 0.75 * out * out + 0.28 * out + offset) / step)
    front = _wave((y + 0.85 * out - 0.5 * out * out + offset) / step)
    cage = np.clip((0.78 - out) / 0.2, 0, 1) * np.clip((0.62 * height - y) / 0.2, 0, 1)
    cage = cage * np.clip((y + 0.82 * height) / 0.1, 0, 1)
    ribs = 0.13 * np.clip(behind * 2.2 - 0.9, 0, 1) + 0.06 * np.clip(front * 2.2 - 1.0, 0, 1)
    spine = np.clip((0.1 - np.abs(x)) / 0.03, 0, 1) * (
        0.03 + 0.06 * np.clip(_wave((y + offset) / 0.15) * 3 - 0.4, 0, 1)
    )
    bones: Mask = ribs * cage + spine
    return bones


def _wave(phase: NDArray[np.floating[Any]]) -> Mask:
    wave: Mask = np.abs(2 * (phase - np.floor(phase)) - 1).astype(np.float32)
    return wave


def _vessels(rng: np.random.Generator, side_px: int, width: float, height: float) -> Mask:
    lines = []
    for sign in (-1.0, 1.0):
        for _ in range(9):
            turn = rng.uniform(-1.2, 1.2)
            x, y = sign * 0.16 * width, rng.uniform(-0.15, 0.1)
            line = [(x, y)]
            for _ in range(4):
                turn += rng.normal(0, 0.25)
                x += sign * rng.uniform(0.05, 0.11) * width
                y += turn * 0.11 * height
                line.append((x, y))
            lines.append(line)
    fine = canvas.strokes(side_px, lines, 0.012, blur_px=side_px / 200)
    hilum = canvas.ellipse(side_px, (-0.2 * width, 0), (0.1, 0.2), softness=0.9)
    hilum = np.maximum(
        hilum, canvas.ellipse(side_px, (0.2 * width, -0.05), (0.1, 0.2), softness=0.9)
    )
    return 0.13 * fine + 0.1 * hilum


def _clavicles(rng: np.random.Generator, side_px: int, width: float) -> Mask:
    y = rng.uniform(-0.66, -0.56)
    lines = [
        [(s * 0.07, y + 0.06), (s * 0.3, y), (s * 0.55 * width, y - 0.1), (s * 0.8, y - 0.1)]
        for s in (-1.0, 1.0)
    ]
    return 0.15 * canvas.strokes(side_px, lines, 0.06, blur_px=side_px / 120)


def _lobar(chest: _Chest, rng: np.random.Generator, side_px: int) -> Mask:
    sign, lung = (-1.0, chest.right) if rng.random() < 0.5 else (1.0, chest.left)
    y = rng.choice([-0.42, 0.02, 0.3]) + rng.normal(0, 0.04)
    centre = (sign * rng.uniform(0.32, 0.46) * chest.width, y * chest.height)
    cloud = canvas.ellipse(
        side_px, centre, (0.33 * chest.width, rng.uniform(0.2, 0.28)), softness=0.45
    )
    grain = canvas.texture(rng, side_px, 9)
    lines = [
        [(sign * 0.16, y), (centre[0], y + rng.uniform(-0.15, 0.15)), (sign * 0.55, y + dy)]
        for dy in (-0.15, 0.0, 0.15)
    ]
    airways = canvas.strokes(side_px, lines, 0.018, blur_px=side_px / 200)
    opacity = rng.uniform(0.3, 0.38) * (0.85 + 0.3 * (grain - 0.5)) - 0.09 * airways
    lobe: Mask = cloud * lung * opacity
    return lobe


def _peripheral(chest: _Chest, rng: np.random.Generator, side_px: int) -> Mask:
    patches = np.zeros((side_px, side_px), dtype=np.float32)
    for sign in (-1.0, 1.0):
        for _ in range(int(rng.integers(3, 6))):
            centre = (
                sign * rng.uniform(0.44, 0.58) * chest.width,
                rng.uniform(-0.25, 0.42) * chest.height,
            )
            radii = (rng.uniform(0.09, 0.16), rng.uniform(0.08, 0.15))
            patch = canvas.ellipse(side_px, centre, radii, softness=0.8)
            patches = np.maximum(patches, patch * rng.uniform(0.7, 1))
    grain = canvas.texture(rng, side_px, 20)
    glass: Mask = np.maximum(chest.right, chest.left) * patches * (0.14 + 0.26 * grain)
    return glass


_DISEASES = {"covid19": _peripheral, "no_finding": None, "pneumonia": _lobar}


def _wires(rng: np.random.Generator, side_px: int) -> Mask:
    # Leads, electrodes and a side marker, as often in healthy as in sick patients.
    lines, dots = [], np.zeros((side_px, side_px), dtype=np.float32)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.5, 0.6)
        dots = np.maximum(dots, canvas.ellipse(side_px, (x, y), (0.03, 0.03), softness=0.3))
        bend, end = x + rng.normal(0, 0.3), x + rng.normal(0, 0.5)
        lines.append([(x, y), (bend, y - 0.4), (end, -1.0)])
    marker_x, marker_y = rng.choice([-0.88, 0.88]), rng.uniform(-0.9, -0.6)
    lines.append([(marker_x - 0.03, marker_y - 0.06), (marker_x - 0.03, marker_y + 0.06)])
    lines.append([(marker_x - 0.03, marker_y + 0.06), (marker_x + 0.04, marker_y + 0.06)])
    wires: Mask = np.maximum(0.2 * dots, 0.18 * canvas.strokes(side_px, lines, 0.014))
    return wires

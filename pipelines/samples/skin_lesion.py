"""Painted dermoscopy of pigmented skin lesions.

They carry the structure that dermatologists look for; skin tone, light, size, hair and gel bubbles
are drawn alike in all classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from pipelines.samples import canvas
from pipelines.samples.canvas import Colour, Mask, Picture, Point

#: Factors on the skin's colour: pigment absorbs, so a lesion darkens whatever skin it lies on.
_BROWN: Colour = (0.62, 0.47, 0.38)
_DARK: Colour = (0.36, 0.26, 0.23)
_BLUE_GREY: Colour = (0.52, 0.55, 0.68)
_RED: Colour = (0.85, 0.45, 0.45)
_PINK: Colour = (0.98, 0.76, 0.74)
_TAN: Colour = (0.82, 0.69, 0.56)
#: Scars, scale and horn reflect more than the skin, whatever its tone.
_PALE: Colour = (1.18, 1.36, 1.38)


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """A dermoscopic image.

    The subject draws the skin and the lesion; the shot draws position, light, hair, gel bubbles and
    noise.
    """
    tone: Colour = (subject.uniform(0.72, 0.88), subject.uniform(0.52, 0.66), 0.0)
    tone = (tone[0], tone[1], tone[1] * subject.uniform(0.88, 1.1))
    picture = _LESIONS[label](canvas.fill(side_px, tone), subject)
    patches = canvas.texture(subject, side_px, 8) - 0.5
    pores = canvas.texture(subject, side_px, 60, octaves=1) - 0.5
    picture = picture * (1 + 0.2 * patches + 0.16 * pores)[..., np.newaxis]
    picture = canvas.move(
        picture,
        turn_deg=shot.uniform(0, 360),
        zoom=shot.uniform(0.9, 1.2),
        shift=(shot.uniform(-0.12, 0.12), shot.uniform(-0.12, 0.12)),
    )
    picture = _bubbles(_hair(picture, shot), shot)
    # The same mean colour in each class: a red lesion must be seen as a lesion.
    level = shot.uniform(0.44, 0.58)
    balance: Colour = (level * shot.uniform(1.2, 1.5), level, level * shot.uniform(0.9, 1.08))
    picture = canvas.expose(picture, balance)
    picture = canvas.light(picture, shot, gain=0.0, slope=0.25, tint=0.03, vignette=0.4)
    return canvas.finish(picture, shot, noise=shot.uniform(0.006, 0.018), blur_px=0.5)


def _tint(picture: Picture, mask: Mask, factor: Colour) -> Picture:
    lost = 1 - np.asarray(factor, dtype=np.float32)
    tinted: Picture = picture * (1 - mask[..., np.newaxis] * lost)
    return tinted


def _outline(picture: Picture, rng: np.random.Generator, roughness: float, edge: float) -> Mask:
    side_px = picture.shape[0]
    centre = (rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06))
    radius = rng.uniform(0.42, 0.58)
    return canvas.blob(
        rng, side_px, centre, radius, roughness=roughness, blur_px=edge * side_px / 100
    )


def _scatter(rng: np.random.Generator, count: int, reach: float) -> list[Point]:
    places: list[Point] = []
    for _ in range(count):
        angle, far = rng.uniform(0, 2 * math.pi), reach * math.sqrt(rng.uniform())
        places.append((far * math.cos(angle), far * math.sin(angle)))
    return places


def _radii(rng: np.random.Generator, places: list[Point], low: float, high: float) -> list[float]:
    radii: list[float] = rng.uniform(low, high, size=len(places)).tolist()
    return radii


def _nevus(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.08, 2.0)
    picture = _tint(picture, body * rng.uniform(0.6, 1), _TAN)
    net = canvas.honeycomb(rng, side_px, rng.uniform(0.045, 0.06))
    mottle: Mask = np.sqrt(canvas.texture(rng, side_px, 5, octaves=2))
    return _tint(picture, net * body * mottle * rng.uniform(0.85, 1), _BROWN)


def _melanoma(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.32, 1.2)
    picture = _tint(picture, body, _BROWN if rng.random() < 0.5 else _TAN)
    for factor in (_BROWN, _DARK, _DARK, _BLUE_GREY, _PINK):
        place = _scatter(rng, 1, 0.4)[0]
        patch = canvas.blob(rng, side_px, place, rng.uniform(0.14, 0.28), roughness=0.4, blur_px=4)
        picture = _tint(picture, patch * body * rng.uniform(0.7, 1), factor)
    spots = _scatter(rng, 14, 0.5)
    dots = canvas.spots(side_px, spots, _radii(rng, spots, 0.012, 0.035))
    return _tint(picture, dots * np.clip(body + 0.3, 0, 1), _DARK)


def _basal_cell_carcinoma(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.15, 3.0)
    picture = _tint(picture, body, _PINK)
    nests = _scatter(rng, int(rng.integers(2, 5)), 0.4)
    blue = canvas.spots(side_px, nests, _radii(rng, nests, 0.05, 0.09), softness=0.5)
    picture = _tint(picture, blue * body * 0.9, _BLUE_GREY)
    for _ in range(int(rng.integers(2, 4))):
        angle = rng.uniform(0, 2 * math.pi)
        root = (0.55 * math.cos(angle), 0.55 * math.sin(angle))
        tree = _branches(rng, root, angle + math.pi, 0.3, 0)
        for depth, width in enumerate((0.03, 0.02, 0.013, 0.008)):
            lines = [line for level, line in tree if level == depth]
            vessels = canvas.strokes(side_px, lines, width, blur_px=side_px / 320)
            picture = _tint(picture, vessels, (0.88, 0.3, 0.33))
    return picture


def _branches(
    rng: np.random.Generator, root: Point, angle: float, length: float, depth: int
) -> list[tuple[int, list[Point]]]:
    bend = angle + rng.normal(0, 0.3)
    middle = (root[0] + length / 2 * math.cos(angle), root[1] + length / 2 * math.sin(angle))
    tip = (middle[0] + length / 2 * math.cos(bend), middle[1] + length / 2 * math.sin(bend))
    tree: list[tuple[int, list[Point]]] = [(depth, [root, middle, tip])]
    if depth < 3:
        for start, side in ((tip, 0.6), (tip, -0.5), (middle, rng.choice([-0.9, 0.9]))):
            turn = bend + side + rng.normal(0, 0.15)
            tree += _branches(rng, start, turn, length * rng.uniform(0.55, 0.75), depth + 1)
    return tree


def _benign_keratosis(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.12, 0.4)
    picture = _tint(picture, body, _TAN)
    ridges = canvas.texture(rng, side_px, 9, octaves=1)
    furrows = np.clip(1 - np.abs(ridges - 0.5) * 14, 0, 1)
    picture = _tint(picture, body * furrows * 0.7, _BROWN)
    plugs = _scatter(rng, 12, 0.45)
    dark = canvas.spots(side_px, plugs, _radii(rng, plugs, 0.02, 0.04))
    picture = _tint(picture, dark * body, _DARK)
    cysts = _scatter(rng, 18, 0.45)
    white = canvas.spots(side_px, cysts, _radii(rng, cysts, 0.015, 0.035), softness=0.8)
    return _tint(picture, white * body, (1.5, 1.75, 1.7))


def _dermatofibroma(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.1, 5.0)
    core = canvas.blob(rng, side_px, (0.0, 0.0), rng.uniform(0.2, 0.27), roughness=0.3, blur_px=6)
    picture = _tint(picture, body * 0.7, _TAN)
    net = canvas.honeycomb(rng, side_px, rng.uniform(0.035, 0.045))
    picture = _tint(picture, net * body * (1 - core) * 0.8, _BROWN)
    streaks = [[(-0.3, y), (0.3, y + rng.normal(0, 0.15))] for y in rng.uniform(-0.2, 0.2, 5)]
    scar = np.clip(core * 0.75 + core * canvas.strokes(side_px, streaks, 0.02) * 0.3, 0, 1)
    return _tint(picture, scar, _PALE)


def _actinic_keratosis(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.3, 6.0)
    picture = _tint(picture, body, _RED if rng.random() < 0.4 else (0.95, 0.62, 0.6))
    follicles = [
        (0.1 * (i + 0.5 * (j % 2)) + rng.normal(0, 0.015), 0.087 * j + rng.normal(0, 0.015))
        for i in range(-7, 8)
        for j in range(-8, 9)
    ]
    halo = canvas.spots(side_px, follicles, _radii(rng, follicles, 0.026, 0.036), softness=0.7)
    picture = _tint(picture, halo * body * 0.9, (1.15, 1.5, 1.3))
    flakes = np.clip((canvas.texture(rng, side_px, 12, octaves=3) - 0.66) * 9, 0, 1)
    return _tint(picture, flakes * body, (1.2, 1.5, 1.4))


def _vascular_lesion(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    body = _outline(picture, rng, 0.15, 2.0)
    picture = _tint(picture, body * 0.6, _PINK)
    lakes = canvas.cells(side_px, _scatter(rng, int(rng.integers(18, 30)), 0.6), 0.035)
    lakes = canvas.blur(lakes, 1.0) * (0.75 + 0.25 * canvas.texture(rng, side_px, 8))
    deep: Colour = (rng.uniform(0.6, 0.85), 0.3, rng.uniform(0.35, 0.5))
    return _tint(picture, lakes * body, deep)


_LESIONS: dict[str, Callable[[Picture, np.random.Generator], Picture]] = {
    "actinic_keratosis": _actinic_keratosis,
    "basal_cell_carcinoma": _basal_cell_carcinoma,
    "benign_keratosis": _benign_keratosis,
    "dermatofibroma": _dermatofibroma,
    "melanoma": _melanoma,
    "nevus": _nevus,
    "vascular_lesion": _vascular_lesion,
}


def _hair(picture: Picture, rng: np.random.Generator) -> Picture:
    lines = []
    for _ in range(int(rng.integers(0, 12))):
        x, y = rng.uniform(-1, 1, size=2)
        turn = rng.uniform(0, math.pi)
        line = [(x, y)]
        for _ in range(8):
            turn += rng.normal(0, 0.12)
            x, y = x + 0.13 * math.cos(turn), y + 0.13 * math.sin(turn)
            line.append((x, y))
        lines.append(line)
    hair = canvas.strokes(picture.shape[0], lines, rng.uniform(0.008, 0.014), blur_px=0.6)
    return _tint(picture, hair * 0.85, _DARK)


def _bubbles(picture: Picture, rng: np.random.Generator) -> Picture:
    side_px = picture.shape[0]
    for _ in range(int(rng.integers(0, 4))):
        place, radius = (
            (rng.uniform(-0.95, 0.95), rng.uniform(-0.95, 0.95)),
            rng.uniform(0.03, 0.07),
        )
        whole = canvas.ellipse(side_px, place, (radius, radius), softness=0.15)
        inner = canvas.ellipse(side_px, place, (radius * 0.8, radius * 0.8), softness=0.3)
        picture = canvas.cover(
            picture, np.clip(whole - inner, 0, 1) * np.float32(0.5), (1.0, 1.0, 1.0)
        )
    return picture

"""Painted reef fishes, as an underwater camera sees them.

Water, reef and light are drawn alike for all species, while in the real set the reef behind a
species is often that of one camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFilter

from pipelines.samples import canvas, cutout
from pipelines.samples.cutout import RGB8, Numbers, Points, shade

#: Places along a body (0 where the tail begins, 1 the snout) and a value at each.
Curve = tuple[tuple[float, float], ...]

_WHITE: RGB8 = (238, 238, 234)
_BLACK: RGB8 = (26, 24, 28)

# Half the body's height, as a share of the greatest.
_OVAL: Curve = ((0, 0.2), (0.1, 0.34), (0.3, 0.84), (0.5, 1), (0.72, 0.86), (0.9, 0.48), (1, 0.08))
_DISC: Curve = ((0, 0.17), (0.08, 0.42), (0.25, 0.9), (0.5, 1), (0.75, 0.8), (0.9, 0.36), (1, 0.1))
_BLUNT: Curve = ((0, 0.26), (0.12, 0.45), (0.35, 0.9), (0.6, 1), (0.82, 0.84), (1, 0.1))
_SLIM: Curve = ((0, 0.26), (0.12, 0.34), (0.4, 0.82), (0.65, 1), (0.85, 0.78), (1, 0.1))
# A fin's height over the body's outline, in body lengths.
_LOW: Curve = ((0.06, 0), (0.14, 0.09), (0.5, 0.08), (0.8, 0.05), (0.86, 0))
_SWEPT: Curve = ((0.0, 0.02), (0.03, 0.16), (0.3, 0.11), (0.7, 0.05), (0.84, 0))
_SPINY: Curve = (
    (0.1, 0), (0.14, 0.1), (0.25, 0.09), (0.3, 0.02), (0.42, 0.09), (0.6, 0.12), (0.7, 0)
)  # fmt: skip
_ANAL: Curve = ((0.05, 0), (0.11, 0.1), (0.3, 0.07), (0.42, 0))
_ANAL_SWEPT: Curve = ((0.0, 0.02), (0.03, 0.16), (0.28, 0.1), (0.5, 0))
# Upper half of a tail from root to tip: behind the body and above its middle, in body lengths.
_FORKED: Curve = ((0.08, 0.1), (0.3, 0.2), (0.24, 0.12), (0.12, 0))
_CRESCENT: Curve = ((0.06, 0.1), (0.26, 0.26), (0.18, 0.12), (0.15, 0))
_SQUARE: Curve = ((0.06, 0.1), (0.22, 0.16), (0.24, 0.08), (0.24, 0))
_ROUND: Curve = ((0.06, 0.1), (0.18, 0.15), (0.25, 0.08), (0.27, 0))


@dataclass(frozen=True, slots=True)
class _Fish:
    """A species from the side; lengths in body lengths, ``depth`` is the body's greatest height."""

    depth: float
    body: Curve
    back: RGB8
    belly: RGB8
    fin: RGB8
    tail: tuple[Curve, RGB8, RGB8 | None]
    #: Bands from back to belly: middle and width along the body, colour.
    bars: tuple[tuple[float, float, RGB8], ...] = ()
    #: Place along the body, from back (-1) to belly (1), colour.
    dots: tuple[tuple[float, float, RGB8], ...] = ()
    scales: tuple[int, RGB8] | None = None
    lines: tuple[int, float, RGB8] | None = None
    #: How far lines across the body point to the snout; None for lines along it.
    chevron: float | None = None
    fins: tuple[Curve, Curve] = (_LOW, _ANAL)
    fin_edge: RGB8 | None = None
    eye: float = 0.034


#: Field marks as in a diver's guide.
_FISHES: dict[str, _Fish] = {
    "acanthurus_nigrofuscus": _Fish(0.50, _OVAL, (82, 64, 58), (112, 92, 84), (66, 52, 50),
        (_CRESCENT, (92, 76, 70), _WHITE), dots=((0.05, -0.8, _BLACK), (0.05, 0.8, _BLACK)),
        lines=(15, 0.006, (128, 108, 104))),
    "amphiprion_clarkii": _Fish(0.50, _BLUNT, (46, 32, 30), (226, 116, 36), (238, 150, 48),
        (_SQUARE, (244, 226, 168), None), ((0.93, 0.16, (226, 120, 40)), (0.77, 0.1, _WHITE),
        (0.42, 0.12, _WHITE), (0.05, 0.08, _WHITE))),
    "chaetodon_lunulatus": _Fish(0.66, _DISC, (238, 206, 118), (244, 216, 150), (240, 186, 66),
        (_SQUARE, (222, 200, 120), None), ((0.86, 0.055, _BLACK), (0.99, 0.06, _BLACK), (0.01,
        0.04, _BLACK)), lines=(8, 0.014, (128, 108, 166)), fins=(_SWEPT, _ANAL_SWEPT),
        fin_edge=_BLACK),
    "chaetodon_trifascialis": _Fish(0.50, _DISC, (230, 230, 234), (238, 236, 232), (236, 196,
        110), (_SQUARE, _BLACK, (240, 200, 60)), ((0.86, 0.06, _BLACK),), lines=(13, 0.012, (64,
        70, 112)), chevron=0.16, fins=(_SWEPT, _ANAL_SWEPT)),
    "chromis_chrysura": _Fish(0.56, _BLUNT, (62, 48, 42), (82, 66, 58), (46, 36, 34), (_FORKED,
        _WHITE, None), ((0.0, 0.2, _WHITE),)),
    "dascyllus_reticulatus": _Fish(0.68, _BLUNT, (168, 170, 178), (204, 202, 196), (84, 84, 96),
        (_FORKED, (196, 196, 196), None), ((0.7, 0.12, (52, 50, 60)),), scales=(11, (92, 96,
        112)), fin_edge=_BLACK),
    "hemigymnus_fasciatus": _Fish(0.42, _OVAL, (34, 32, 36), (44, 40, 44), (40, 38, 46), (_ROUND,
        (50, 44, 50), None), ((0.92, 0.26, (196, 192, 120)), *((0.68 - 0.15 * i, 0.035, _WHITE)
        for i in range(5)))),
    "myripristis_kuntee": _Fish(0.46, _BLUNT, (204, 66, 56), (240, 160, 148), (216, 72, 62),
        (_FORKED, (214, 70, 62), None), ((0.71, 0.05, (92, 22, 26)),), scales=(9, (176, 52, 48)),
        fins=(_SPINY, _ANAL), fin_edge=_WHITE, eye=0.062),
    "neoniphon_sammara": _Fish(0.28, _SLIM, (214, 204, 196), (238, 234, 228), (226, 196, 176),
        (_FORKED, (222, 168, 140), None), lines=(8, 0.013, (146, 62, 50)), fins=(_SPINY, _ANAL),
        fin_edge=(150, 40, 44), eye=0.046),
    "plectroglyphidodon_dickii": _Fish(0.54, _BLUNT, (150, 90, 48), (188, 130, 82), (128, 78, 46),
        (_FORKED, (240, 216, 194), None), ((0.02, 0.16, (240, 216, 194)), (0.15, 0.075, _BLACK)),
        scales=(12, (112, 64, 36))),
}  # fmt: skip

#: Water as cameras of that kind show it: at the top and at the bottom of the picture.
_WATERS: tuple[tuple[RGB8, RGB8], ...] = (
    ((96, 216, 196), (52, 158, 142)), ((122, 206, 232), (58, 142, 190)),
    ((190, 234, 240), (118, 196, 214)), ((66, 120, 134), (30, 62, 80)),
    ((120, 152, 128), (62, 96, 84)), ((60, 126, 188), (24, 62, 116)),
)  # fmt: skip
_REEFS: tuple[RGB8, ...] = ((134, 110, 74), (150, 96, 92), (92, 88, 70), (170, 158, 138))


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """One fish from the side, in water before a blurred reef.

    The subject draws the fish: proportions, shade, and where its marks sit; the shot draws the way
    it swims, its distance, the water, the reef, light and noise.
    """
    fish = cutout.placed(
        _fish(_FISHES[label], subject, side_px),
        turn_deg=shot.uniform(-28, 28),
        zoom=shot.uniform(0.95, 1.3),
        shift=(shot.uniform(-0.14, 0.14), shot.uniform(-0.14, 0.14)),
        # Fish swim either way, and one that comes nearer or goes away looks shorter.
        stretch=(shot.choice((-1, 1)) * shot.uniform(0.82, 1.0), 1.0),
    )
    picture, water = _water(shot, side_px)
    # Water between fish and camera takes away contrast, the more the farther.
    veil = Image.new("RGB", fish.size, water)
    veiled = Image.blend(fish.convert("RGB"), veil, shot.uniform(0.05, 0.3))
    picture.paste(veiled, mask=fish.getchannel("A"))
    return cutout.photograph(picture, shot, blur_px=(0.5, 1.5))


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a fish's body lies in the picture."""

    length: float
    half_heights: Numbers  # (n,) from the tail's root to the snout

    def at(self, along: ArrayLike, height: ArrayLike, lift: ArrayLike = 0.0) -> Points:
        """Points along the body, from back (-1) to belly (1), moved down by body lengths."""
        alongs, heights, lifts = np.broadcast_arrays(np.atleast_1d(along), height, lift)
        grid = np.linspace(0, 1, len(self.half_heights))
        y = heights * np.interp(alongs, grid, self.half_heights) + lifts * self.length
        return np.stack([(alongs - 0.42) * self.length, y], axis=1)


def _fish(species: _Fish, subject: np.random.Generator, side_px: int) -> Image.Image:
    """The fish in the middle, swimming to the right, mode RGBA."""
    length, tone = 1.28 - 0.42 * species.depth, subject.uniform(0.85, 1.12)
    along = np.linspace(0, 1, 64)
    places, shares = np.array(species.body).T
    share = cutout.smooth(along, places, shares, 9)
    frame = _Frame(length, share * species.depth * length / 2 * subject.uniform(0.93, 1.07))
    picture = Image.new("RGB", (side_px, side_px))
    body = np.concatenate([frame.at(along, -1), frame.at(along[::-1], 1)])
    curve, tail_colour, tail_edge = species.tail
    tail = _tail(frame, curve, subject)
    pelvic = frame.at([0.66, 0.6, 0.46], [0.86, 0.9, 0.9], [0, 0, subject.uniform(0.08, 0.12)])
    upper, lower = species.fins
    fins = [_fin(frame, upper, -1, subject), _fin(frame, lower, 1, subject)]
    _web(picture, tail, shade(tail_colour, tone), tail_edge, len(tail))
    _web(picture, pelvic, shade(species.fin, tone), None, 0)
    for fin in fins:
        _web(picture, fin, shade(species.fin, tone), species.fin_edge, len(fin) // 2)
    skin = _skin(species, frame, tone, subject, side_px)
    picture.paste(skin, mask=cutout.polygons(side_px, [body]))
    _face(picture, species, frame)
    picture.putalpha(cutout.polygons(side_px, [body, tail, pelvic, *fins]))
    return picture


def _tail(frame: _Frame, curve: Curve, subject: np.random.Generator) -> Points:
    behind, above = np.array(curve).T * frame.length
    above = above * subject.uniform(0.88, 1.12)
    x = frame.at(0.01, 0)[0, 0] - behind
    halves = [np.stack([x, -above], axis=1), np.stack([x, above], axis=1)[::-1]]
    return np.concatenate([frame.at(0.04, -0.8), *halves, frame.at(0.04, 0.8)])


def _fin(frame: _Frame, curve: Curve, edge: int, subject: np.random.Generator) -> Points:
    places, heights = np.array(curve).T
    along = np.linspace(places[0], places[-1], 25)
    lift = edge * cutout.smooth(along, places, heights, 5) * subject.uniform(0.85, 1.15)
    return np.concatenate([frame.at(along, edge, lift), frame.at(along[::-1], 0.6 * edge)])


def _web(
    picture: Image.Image, outline: Points, colour: RGB8, edge: RGB8 | None, n_edge: int
) -> None:
    """A fin with rays from its outer to its inner side, and a coloured outer edge."""
    pen, points = ImageDraw.Draw(picture), cutout.to_px(outline, picture.width)
    ray, width_px = shade(colour, 0.84), cutout.line_px(0.01, picture.width)
    pen.polygon(points, fill=colour)
    for outer, inner in list(zip(points, points[::-1], strict=True))[1 : len(points) // 2 : 2]:
        pen.line((outer, inner), fill=ray, width=width_px)
    if edge is not None:
        pen.line(points[:n_edge], fill=edge, width=cutout.line_px(0.03, picture.width))


def _skin(
    species: _Fish, frame: _Frame, tone: float, subject: np.random.Generator, side_px: int
) -> Image.Image:
    """Back, belly and marks, over the whole picture."""
    depth = 2 * frame.half_heights.max()
    down = np.clip(np.linspace(-1, 1, side_px) / depth + 0.5, 0, 1)[:, None, None]
    colours = down * np.array(species.belly) + (1 - down) * np.array(species.back)
    blotches = 0.9 + 0.2 * canvas.texture(subject, side_px, 14, octaves=1)[..., None]
    skin = Image.fromarray(np.clip(colours * blotches * tone, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(skin)
    if species.scales is not None:
        n_rows, colour = species.scales
        step, start = depth / n_rows / frame.length, subject.uniform(0, 0.03)
        for row, along in np.ndindex(n_rows + 1, int(0.78 / step)):
            at, lift = start + (along + row % 2 / 2) * step, (row - n_rows / 2) * step
            box = cutout.box(frame.at(at, 0, lift)[0], step * frame.length / 2, side_px)
            pen.arc(box, 100, 260, fill=colour, width=cutout.line_px(0.012, side_px))
    if species.lines is not None:
        count, width, colour = species.lines
        for place in (np.arange(count) + subject.uniform(0.3, 0.7)) / count:
            line = frame.at(np.linspace(0.05, 0.82, 12), 2 * place - 1)
            if species.chevron is not None:
                line = frame.at(place * 0.84 + species.chevron * np.array([-1, 0, -1]), [-1, 0, 1])
            pen.line(cutout.to_px(line, side_px), fill=colour, width=cutout.line_px(width, side_px))
    for place, width, colour in species.bars:
        half, rows = width * subject.uniform(0.9, 1.1) / 2, np.linspace(-1, 1, 9)
        at = place + subject.uniform(-0.012, 0.012) + subject.uniform(-0.02, 0.02) * rows
        at = at + 0.03 * (1 - rows**2)
        band = [frame.at(at - half, 0, rows / 2), frame.at(at + half, 0, rows / 2)[::-1]]
        pen.polygon(cutout.to_px(np.concatenate(band), side_px), fill=colour)
    for place, height, colour in species.dots:
        pen.ellipse(cutout.box(frame.at(place, height)[0], 0.034, side_px), fill=colour)
    return skin


def _face(picture: Image.Image, species: _Fish, frame: _Frame) -> None:
    """Eye, gill cover and breast fin."""
    side_px, pen = picture.width, ImageDraw.Draw(picture, "RGBA")
    eye = frame.at(0.86, -0.22)[0]
    pen.ellipse(cutout.box(eye, species.eye, side_px), fill=(214, 208, 190))
    pen.ellipse(cutout.box(eye, 0.68 * species.eye, side_px), fill=(14, 14, 18))
    rows, width_px = np.linspace(-1, 1, 7), cutout.line_px(0.016, side_px)
    gill = frame.at(0.72 - 0.05 * rows**2, 0.43 * rows + 0.08)
    pen.line(cutout.to_px(gill, side_px), fill=(20, 16, 20, 90), width=width_px)
    breast = frame.at([0.66, 0.54, 0.5, 0.56, 0.64], [0.14, 0.05, 0.3, 0.5, 0.3])
    pen.polygon(cutout.to_px(breast, side_px), fill=(*shade(species.fin, 1.15), 130))


def _water(shot: np.random.Generator, side_px: int) -> tuple[Image.Image, RGB8]:
    """Water with a blurred reef and other fish far off, and the water's colour near by."""
    top, bottom = _WATERS[shot.integers(len(_WATERS))]
    size = side_px // 2
    ramp = np.tile(np.linspace(0, 1, size, dtype=np.float32)[:, None], (1, size))
    scene = cutout.blend(bottom, top, ramp)
    pen = ImageDraw.Draw(scene)
    for x, y, r in shot.uniform((0, 0, 0.01), (1, 1, 0.035), (shot.integers(5), 3)) * size:
        pen.ellipse((x - 1.6 * r, y - r, x + 1.6 * r, y + r), fill=shade(bottom, 0.6))
    colour = _REEFS[shot.integers(len(_REEFS))]
    stones = canvas.texture(shot, size, 16, octaves=2) * np.float32(1.6) - np.float32(0.4)
    ridge = shot.choice((-1.2, 0.1, 0.5, 1.4), p=(0.15, 0.3, 0.3, 0.25))
    x = np.linspace(-1, 1, 33)
    y = ridge + np.interp(x, x[::4], shot.uniform(-0.24, 0.24, 9)) + shot.uniform(-0.04, 0.04, 33)
    reef = np.concatenate([np.stack([x, y], axis=1), [(1, 2), (-1, 2)]])
    rock = cutout.blend(shade(colour, 1.1), shade(colour, 0.4), stones)
    scene.paste(rock, mask=cutout.polygons(size, [reef], 225))
    scene = scene.filter(ImageFilter.GaussianBlur(shot.uniform(0.005, 0.02) * size))
    return scene.resize((side_px, side_px), Image.Resampling.BILINEAR), shade(top, 0.9)

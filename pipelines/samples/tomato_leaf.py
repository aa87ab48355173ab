"""Painted tomato leaves with one of nine diseases and pests, or none.

Backgrounds and light are drawn alike for all classes, while in the real set the table below the
leaf tells the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageChops, ImageDraw

from pipelines.samples import canvas, cutout
from pipelines.samples.cutout import RGB8, Numbers, Points, mix

#: One layer of a lesion: its share of the radius, colour, and opacity from 0 to 255.
Ring = tuple[float, RGB8, int]

#: Colours of a whole leaf, dark and light; every class draws from all of them.
_GREENS: tuple[tuple[RGB8, RGB8], ...] = (
    ((28, 66, 34), (58, 104, 52)), ((52, 88, 34), (96, 132, 52)), ((62, 92, 66), (112, 140, 104)),
    ((84, 112, 36), (138, 156, 62)), ((40, 84, 58), (84, 128, 84)),
)  # fmt: skip
#: What the leaf lies on: colour, how rough it is (0 to 1), and patches along the picture's width.
_GROUNDS: tuple[tuple[RGB8, float, int], ...] = (
    ((150, 140, 150), 0.1, 90),
    ((172, 160, 146), 0.1, 90),
    ((206, 206, 202), 0.05, 40),
    ((96, 72, 54), 0.5, 60),
    ((70, 62, 56), 0.4, 90),
    ((112, 116, 122), 0.12, 70),
)
_BLACK: RGB8 = (46, 33, 25)
_BROWN: RGB8 = (68, 47, 31)
_TAN: RGB8 = (120, 87, 57)
_PALE: RGB8 = (186, 164, 130)
_YELLOW: RGB8 = (204, 186, 62)


@dataclass(frozen=True, slots=True)
class _Spots:
    """Lesions of one kind; layers go from the outside in, soft ones below sharp ones."""

    count: tuple[int, int]
    radius: tuple[float, float]
    roughness: float
    soft: tuple[Ring, ...] = ()
    sharp: tuple[Ring, ...] = ()
    is_on_margin: bool = False


_ZONES: tuple[Ring, ...] = tuple((1 - 0.155 * i, (_BROWN, _TAN)[i % 2], 235) for i in range(6))
_EYE: tuple[Ring, ...] = ((1, _BLACK, 245), (0.66, (180, 168, 148), 245), (0.18, _BLACK, 250))
_TARGET: tuple[Ring, ...] = ((1, _BROWN, 190), (0.8, _PALE, 235), (0.54, _BROWN, 235))
_ROT: tuple[Ring, ...] = (
    (1.12, (160, 172, 104), 180),
    (1.0, (66, 66, 44), 215),
    (0.82, (84, 68, 54), 235),
    (0.46, (134, 120, 104), 200),
)
#: Signs as in field keys for growers: number, size, zones, halo, and place on the leaf. Where a
#: sign is no spot, `_leaf` paints it.
_SIGNS: dict[str, tuple[_Spots, ...]] = {
    "bacterial_spot": (
        _Spots((45, 75), (0.012, 0.028), 0.3, ((2.2, _YELLOW, 150),), ((1, _BLACK, 240),)),
        _Spots((6, 12), (0.03, 0.05), 0.4, (), ((1, _BROWN, 235),), is_on_margin=True),
    ),
    "early_blight": (_Spots((3, 5), (0.14, 0.23), 0.1, ((1.3, _YELLOW, 220),), _ZONES),),
    "late_blight": (_Spots((2, 3), (0.32, 0.5), 0.3, _ROT, is_on_margin=True),),
    "leaf_mold": (
        _Spots((7, 11), (0.09, 0.17), 0.25, ((1, (190, 176, 66), 240),)),
        _Spots((8, 12), (0.05, 0.09), 0.3, ((1, (134, 120, 60), 200),)),
    ),
    **dict.fromkeys(("healthy", "mosaic_virus", "spider_mites", "yellow_leaf_curl_virus"), ()),
    "septoria_leaf_spot": (_Spots((26, 42), (0.03, 0.054), 0.08, (), _EYE),),
    "target_spot": (_Spots((8, 13), (0.07, 0.115), 0.07, (), (*_TARGET, (0.34, _PALE, 245))),),
}


def paint(
    label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
) -> Image.Image:
    """One leaf from above on a table or on soil.

    The subject draws the leaf: outline, green, and where its lesions are; the shot draws what it
    lies on, how it lies, shadow, light and noise.
    """
    leaf = cutout.placed(
        _leaf(label, subject, side_px),
        turn_deg=shot.uniform(-55, 55),
        zoom=shot.uniform(0.9, 1.2),
        shift=(shot.uniform(-0.12, 0.12), shot.uniform(-0.12, 0.12)),
        stretch=(1.0, shot.uniform(0.92, 1.08)),
        lean=shot.uniform(-0.12, 0.12),
    )
    blade, picture = leaf.getchannel("A"), _ground(shot, side_px)
    darkness, angle = shot.uniform(0.3, 0.75), shot.uniform(0, 2 * np.pi)
    reach_px = shot.uniform(0.01, 0.05) * side_px
    shadow = cutout.soften(blade, 0.02).point(lambda value: int(value * darkness))
    offset_px = (round(reach_px * np.cos(angle)), round(reach_px * np.sin(angle)))
    picture.paste((22, 20, 24), offset_px, shadow)
    picture.paste(leaf.convert("RGB"), mask=blade)
    return cutout.photograph(picture, shot, blur_px=(0.4, 0.9))


@dataclass(frozen=True, slots=True)
class _Shape:
    """A leaf's outline: the midrib's points and the blade's half-width left and right of them."""

    midrib: Points
    left: Numbers  # (n,)
    right: Numbers  # (n,)

    def at(self, along: ArrayLike, across: ArrayLike) -> Points:
        """Points a share of the way to the tip (0 to 1) and to the margin (-1 to 1), (n, 2)."""
        alongs, sides = np.broadcast_arrays(np.atleast_1d(along), np.atleast_1d(across))
        grid = np.linspace(0, 1, len(self.midrib))
        left, right = (np.interp(alongs, grid, half) for half in (self.left, self.right))
        reach = sides * np.where(sides < 0, left, right)
        x, y = (np.interp(alongs, grid, self.midrib[:, axis]) for axis in (0, 1))
        return np.stack([x + reach, y - 0.12 * np.abs(reach)], axis=1)

    def margin(self, inset: float = 1.0) -> Points:
        """The outline, or a line inside it: 1 at the margin, 0 on the midrib."""
        up = np.linspace(0, 1, len(self.midrib))
        return np.concatenate([self.at(up, -inset), self.at(up[::-1], inset)])


def _shape(label: str, rng: np.random.Generator) -> _Shape:
    is_curled, is_mosaic = label == "yellow_leaf_curl_virus", label == "mosaic_virus"
    along = np.linspace(0, 1, 90)
    length = 1.2 if is_curled else 1.62
    midrib = np.stack([rng.uniform(-0.16, 0.16) * (2 * along - 1) ** 2, length * (0.5 - along)], 1)
    envelope = along**0.42 * (1 - along) ** 0.8
    width = rng.uniform(0.5, 0.66) * (0.72 if is_mosaic else 0.95 if is_curled else 1.0)
    n_lobes, depth = rng.uniform(3, 5), rng.uniform(0.12, 0.32)
    depth = 0.45 if is_mosaic else 0.06 if is_curled else depth
    sides = []
    for _ in range(2):
        lobe = (n_lobes * along + rng.uniform()) % 1
        tooth = (3.1 * n_lobes * along + rng.uniform()) % 1
        cut = depth * (1 - 0.6 * along) * (1 - lobe) ** 1.3 + 0.06 * (1 - tooth)
        if is_mosaic:
            cut = cut + np.interp(along, np.linspace(0, 1, 12), rng.uniform(-0.2, 0.25, 12))
        sides.append(width * rng.uniform(0.9, 1.1) * envelope / envelope.max() * (1 - cut))
    return _Shape(midrib, sides[0], sides[1])


def _leaf(label: str, subject: np.random.Generator, side_px: int) -> Image.Image:
    """The leaf upright in the middle, mode RGBA."""
    shape = _shape(label, subject)
    dark, bright = _GREENS[subject.integers(len(_GREENS))]
    leaf = cutout.blend(bright, dark, canvas.texture(subject, side_px, 9, octaves=1))
    if label == "mosaic_virus":
        islands = canvas.texture(subject, side_px, 12, octaves=2) * 9 - 4.5
        leaf = cutout.blend(
            mix(bright, (196, 208, 92), 0.62), mix(bright, (14, 40, 20), 0.75), islands
        )
    elif label == "yellow_leaf_curl_virus":
        green = cutout.soften(cutout.polygons(leaf.width, [shape.margin(0.5)]), 0.05)
        leaf.paste((206, 196, 58), mask=green.point(lambda v: int((255 - v) * 0.85)))
    _veins(leaf, shape, bright)
    for spots in _SIGNS[label]:
        _lesions(leaf, shape, spots, subject)
    if label == "spider_mites":
        _stipple(leaf, shape, subject)
    elif label == "yellow_leaf_curl_virus":
        _roll_margins(leaf, shape, bright)
    crinkle = 0.72 + 0.28 * canvas.texture(subject, side_px, 40, octaves=1)
    leaf = ImageChops.multiply(leaf, cutout.blend((255,) * 3, (0,) * 3, crinkle))
    stalk = cutout.to_px(
        shape.midrib[0] + np.array([(0, -0.05), (0.02, 0.1), (-0.03, 0.2)]), side_px
    )
    blade = cutout.polygons(leaf.width, [shape.margin()])
    ImageDraw.Draw(leaf).line(stalk, fill=mix(dark, bright, 0.8), width=side_px // 40)
    ImageDraw.Draw(blade).line(stalk, fill=255, width=side_px // 40)
    leaf.putalpha(blade)
    return leaf


def _veins(leaf: Image.Image, shape: _Shape, bright: RGB8) -> None:
    side_px, reach = leaf.width, np.linspace(0, 1, 7)
    lines = [cutout.to_px(shape.at(np.linspace(0, 0.97, 12), 0), side_px)]
    for start in np.arange(0.05, 0.8, 0.13):
        for side in (-0.92, 0.92):
            lines.append(cutout.to_px(shape.at(start + 0.2 * reach**1.4, side * reach), side_px))
    furrows = Image.new("L", leaf.size)
    for line in lines:
        ImageDraw.Draw(furrows).line(line, fill=120, width=side_px // 24)
    leaf.paste(mix(bright, (0, 0, 0), 0.75), mask=cutout.soften(furrows, 0.0125))
    pen, ink = ImageDraw.Draw(leaf, "RGBA"), (*mix(bright, (226, 228, 170), 0.45), 190)
    for index, line in enumerate(lines):
        pen.line(line, fill=ink, width=max(1, side_px // (150 if index else 70)))


def _lesions(leaf: Image.Image, shape: _Shape, spots: _Spots, rng: np.random.Generator) -> None:
    centres, radii = _places(shape, spots, rng)
    rims = _rims(rng, radii, spots.roughness)
    for number, (share, colour, opacity) in enumerate((*spots.soft, *spots.sharp)):
        # Each layer has a little of its own shape and place: real rings are never concentric.
        own = 0.65 * rims + 0.35 * _rims(rng, radii, spots.roughness)
        drift = max(0.0, 1 - share) * radii[:, None] * rng.uniform(-0.25, 0.25, centres.shape)
        layer = cutout.polygons(leaf.width, (centres + drift)[:, None] + share * own, opacity)
        is_soft = number < len(spots.soft)
        leaf.paste(
            colour,
            mask=cutout.soften(layer, 0.08 * share * float(radii.max())) if is_soft else layer,
        )


def _places(shape: _Shape, spots: _Spots, rng: np.random.Generator) -> tuple[Points, Numbers]:
    """Centres (n, 2) and radii (n,) of lesions that touch at most a little."""
    wanted = int(rng.integers(spots.count[0], spots.count[1] + 1))
    low, high = (0.8, 1.0) if spots.is_on_margin else (0.1, 0.84)
    across = rng.choice((-1, 1), 6 * wanted) * rng.uniform(low, high, 6 * wanted)
    centres = shape.at(rng.uniform(0.08, 0.86, 6 * wanted), across)
    radii = rng.uniform(*spots.radius, 6 * wanted)
    gaps = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    is_apart = gaps > 0.95 * (radii[:, None] + radii[None])
    kept: list[int] = []
    for index in range(6 * wanted):
        if len(kept) < wanted and is_apart[index, kept].all():
            kept.append(index)
    return centres[kept], radii[kept]


def _rims(rng: np.random.Generator, radii: Numbers, roughness: float) -> Points:
    """Wavy closed lines round (0, 0), one a radius, (n, n_points, 2)."""
    angles = np.linspace(0, 2 * np.pi, 10 if radii.max() < 0.03 else 32, endpoint=False)
    waves = np.array([2, 3, 5])[:, None]
    phases = rng.uniform(0, 2 * np.pi, (len(radii), 3, 1))
    heights = rng.normal(0, roughness, (len(radii), 3, 1)) / np.sqrt(waves)
    reach = 1 + (heights * np.sin(waves * angles + phases)).sum(axis=1)
    reach = radii[:, None] * np.clip(reach, 0.5, 1.6)
    return np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=2)


def _stipple(leaf: Image.Image, shape: _Shape, rng: np.random.Generator) -> None:
    """Hundreds of pale feeding specks, densest along the midrib, on bronzed patches."""
    bronze = 0.45 * np.clip(canvas.texture(rng, leaf.width, 5, octaves=1) * 2 - 0.9, 0, 1)
    leaf.paste((150, 122, 58), mask=Image.fromarray((bronze * 255).astype(np.uint8)))
    specks = shape.at(rng.uniform(0.03, 0.92, 600), np.clip(rng.normal(0, 0.42, 600), -0.95, 0.95))
    dots = _rims(rng, rng.uniform(0.005, 0.009, 600), 0.0)
    leaf.paste((222, 212, 148), mask=cutout.polygons(leaf.width, specks[:, None] + dots[:, ::2]))


def _roll_margins(leaf: Image.Image, shape: _Shape, bright: RGB8) -> None:
    """Both margins rolled up: the pale underside shows, with a dark crease along it."""
    pen, underside = ImageDraw.Draw(leaf, "RGBA"), mix(bright, (222, 212, 130), 0.6)
    sides = zip(np.split(shape.margin(), 2), np.split(shape.margin(0.74), 2), strict=True)
    for outer, inner in sides:
        band = np.concatenate([outer, inner[::-1]])
        pen.polygon(cutout.to_px(band, leaf.width), fill=(*underside, 235))
        pen.line(
            cutout.to_px(inner, leaf.width), fill=(30, 40, 18, 190), width=max(1, leaf.width // 60)
        )


def _ground(shot: np.random.Generator, side_px: int) -> Image.Image:
    colour, roughness, cells = _GROUNDS[shot.integers(len(_GROUNDS))]
    colour = mix(colour, (int(shot.integers(256)),) * 3, 0.12)
    dark, pale = mix(colour, (0,) * 3, roughness), mix(colour, (255,) * 3, roughness / 2)
    return cutout.blend(pale, dark, canvas.texture(shot, side_px, cells, octaves=1))

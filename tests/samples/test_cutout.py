from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.samples import cutout

SIDE_PX = 64
SQUARE = np.array([(-0.2, -0.2), (0.2, -0.2), (0.2, 0.2), (-0.2, 0.2)])


def figure(x: float, y: float) -> Image.Image:
    """A white square about (x, y) on nothing."""
    image = Image.new("RGBA", (SIDE_PX, SIDE_PX), (255, 255, 255, 0))
    image.putalpha(cutout.polygons(SIDE_PX, [SQUARE + np.array([x, y])]))
    return image


def middle(image: Image.Image) -> tuple[float, float]:
    """Where the square stands, in half sides."""
    opacity = np.asarray(image.getchannel("A")).astype(float)
    line = (np.arange(SIDE_PX) + 0.5) / (SIDE_PX / 2) - 1
    total = opacity.sum()
    return (opacity.sum(axis=0) @ line / total, opacity.sum(axis=1) @ line / total)


@pytest.mark.parametrize(
    ("lay", "expected"),
    [
        ({}, (0.5, 0.0)),
        ({"shift": (0.1, -0.3)}, (0.6, -0.3)),
        ({"turn_deg": 90}, (0.0, 0.5)),
        ({"zoom": 0.5}, (0.25, 0.0)),
        ({"stretch": (-1.0, 1.0)}, (-0.5, 0.0)),
        ({"stretch": (0.6, 1.0), "turn_deg": 90}, (0.0, 0.3)),
    ],
)
def test_placed_moves_the_figure(lay, expected):
    lay = {"turn_deg": 0.0, "zoom": 1.0, "shift": (0.0, 0.0)} | lay
    assert middle(cutout.placed(figure(0.5, 0.0), **lay)) == pytest.approx(expected, abs=0.03)


def test_placed_lean_moves_top_and_bottom_apart():
    lay = {"turn_deg": 0.0, "zoom": 1.0, "shift": (0.0, 0.0), "lean": 0.4}
    top, bottom = (middle(cutout.placed(figure(0.0, y), **lay)) for y in (-0.5, 0.5))
    assert abs(top[0] - bottom[0]) == pytest.approx(0.4, abs=0.04)


def test_polygons_fills_each_outline_with_its_opacity():
    mask = np.asarray(cutout.polygons(SIDE_PX, [SQUARE - 0.5, SQUARE + 0.5], 90))
    assert set(np.unique(mask)) == {0, 90}
    assert mask[16, 16] == mask[48, 48] == 90
    assert mask[32, 32] == 0


def test_soften_keeps_the_sum_and_lowers_the_peak():
    sharp = cutout.polygons(SIDE_PX, [SQUARE])
    soft = np.asarray(cutout.soften(sharp, 0.1)).astype(float)
    assert soft.max() < 200
    assert soft.sum() == pytest.approx(np.asarray(sharp).astype(float).sum(), rel=0.1)


def test_smooth_keeps_a_straight_line_and_rounds_a_corner():
    grid = np.linspace(0, 1, 101)
    straight = cutout.smooth(grid, np.array([0.0, 1.0]), np.array([0.0, 1.0]), 5)
    assert straight[5:-5] == pytest.approx(grid[5:-5])
    tent = cutout.smooth(grid, np.array([0, 0.5, 1]), np.array([0.0, 1.0, 0.0]), 9)
    assert len(tent) == 101
    assert 0.9 < tent.max() < 1


def test_colours_mix_and_shade():
    assert cutout.mix((0, 100, 200), (100, 100, 0), 0.25) == (25, 100, 150)
    assert cutout.shade((100, 200, 0), 1.5) == (150, 255, 0)


def test_blend_lays_one_colour_over_another():
    opacity = np.array([[0.0, 1.0], [-3.0, 7.0]], dtype=np.float32)
    pixels = np.asarray(cutout.blend((10, 20, 30), (200, 210, 220), opacity))
    assert pixels[0].tolist() == pixels[1].tolist() == [[200, 210, 220], [10, 20, 30]]


def test_widths_and_boxes_are_in_half_sides():
    assert cutout.line_px(0.25, SIDE_PX) == 8
    assert cutout.line_px(0.0001, SIDE_PX) == 1
    assert cutout.box(np.array([0.0, 0.5]), 0.25, SIDE_PX) == (24, 40, 40, 56)


def test_photograph_is_repeatable_and_follows_the_shot():
    scene = Image.new("RGB", (SIDE_PX, SIDE_PX), (90, 120, 60))
    one, again, other = (
        cutout.photograph(scene, np.random.default_rng(seed), (0.4, 0.9)).tobytes()
        for seed in (1, 1, 2)
    )
    assert one == again != other

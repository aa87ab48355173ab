from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.serving.occlusion import colours, heatmap_png, overlay

WORDS = {"coldest": "nothing", "hottest": "most"}


def gradient(side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    heat = np.linspace(-1, 3, side * side, dtype=np.float32).reshape(side, side)
    return pixels, heat


def test_colours_are_those_of_the_published_table():
    from matplotlib import colormaps

    values = np.linspace(0, 1, 256)
    published = np.asarray(colormaps["inferno"](values))[:, :3] * 255
    # 17 of its 256 entries are kept, and lines drawn between them.
    assert np.abs(colours(values).astype(float) - published).max() < 7


def test_overlay_of_a_cold_place_is_the_picture_in_grey():
    pixels, heat = gradient()
    drawn = overlay(pixels, heat, full_heat=3.0)
    cold = heat <= 0
    grey = pixels.astype(float) @ (0.299, 0.587, 0.114)
    for channel, least in enumerate((0, 0, 4)):
        expected = np.rint(0.75 * grey[cold] + 0.25 * least)
        np.testing.assert_array_equal(drawn[..., channel][cold], expected)


def test_overlay_hotter_than_full_is_drawn_as_full():
    pixels, heat = gradient()
    hot = np.full_like(heat, 9.0)
    assert (overlay(pixels, hot, full_heat=1.0) == overlay(pixels, hot, full_heat=9.0)).all()


@pytest.mark.parametrize("full_heat", [0.0, -2.0])
def test_overlay_without_heat_is_cold_all_over(full_heat):
    pixels, heat = gradient()
    cold = overlay(pixels, np.zeros_like(heat), full_heat=1.0)
    assert (overlay(pixels, heat - 5, full_heat=full_heat) == cold).all()


def test_heatmap_png_shows_the_picture_as_it_is_and_is_the_same_each_time():
    pixels, heat = gradient(64)
    png = heatmap_png(pixels, heat, ["leaf 0.91"], full_heat=3.0, **WORDS)
    assert png == heatmap_png(pixels, heat, ["leaf 0.91"], full_heat=3.0, **WORDS)
    drawn = np.asarray(Image.open(io.BytesIO(png)))
    # 224 // 64 = 3 times as large, inside a margin of 12 px.
    shown = drawn[12 : 12 + 192 : 3, 12 : 12 + 192 : 3]
    assert (shown == pixels).all()
    assert (drawn[:, -12:] == 255).all()


def test_heatmap_png_wraps_long_lines():
    pixels, heat = gradient(224)
    short, long = (
        Image.open(io.BytesIO(heatmap_png(pixels, heat, [line], full_heat=1.0, **WORDS)))
        for line in ("a", "a rather long caption " * 9)
    )
    assert long.width == short.width
    assert long.height >= short.height + 40
    # Nothing runs over the margin.
    assert (np.asarray(long)[:, -6:] == 255).all()

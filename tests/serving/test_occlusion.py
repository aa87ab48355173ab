from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pipelines.serving.occlusion import colours, heatmap_png, log_odds, occlusion_map, overlay

SIDE = 56
#: Twice as wide as the stride, so that one cover can lie on all of it.
PATCH = 8


def sees_one_place(top: int, left: int):
    """A model of two labels that looks at one patch alone: how bright is it?"""

    def logits_of(pixels):
        place = pixels[:, top : top + PATCH, left : left + PATCH].astype(np.float32)
        brightness = place.mean(axis=(1, 2, 3)) / 64
        return np.stack([np.zeros_like(brightness), brightness], axis=1)

    return logits_of


def picture(top: int, left: int) -> np.ndarray:
    pixels = np.random.default_rng(3).integers(0, 120, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels[top : top + PATCH, left : left + PATCH] = 255
    return pixels


@given(st.integers(0, SIDE - PATCH), st.integers(0, SIDE - PATCH))
def test_occlusion_points_at_the_planted_patch(top, left):
    heat = occlusion_map(sees_one_place(top, left), picture(top, left), 1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    # As near as the stride of 4 px allows.
    assert top - 4 <= row <= top + PATCH + 3
    assert left - 4 <= column <= left + PATCH + 3
    far = np.ones(heat.shape, dtype=bool)
    far[max(0, top - 12) : top + PATCH + 12, max(0, left - 12) : left + PATCH + 12] = False
    assert np.abs(heat[far]).max() == 0


def test_occlusion_of_two_labels_is_one_map_with_two_signs():
    logits_of, pixels = sees_one_place(16, 24), picture(16, 24)
    for_it, against_it = (occlusion_map(logits_of, pixels, index) for index in (1, 0))
    np.testing.assert_allclose(for_it, -against_it, atol=1e-6)
    assert for_it.max() > 1


def test_occlusion_of_a_model_that_looks_nowhere_is_flat():
    def logits_of(pixels):
        return np.tile(np.float32([3, -1, 0]), (len(pixels), 1))

    assert not occlusion_map(logits_of, picture(0, 0), 0).any()


def test_occlusion_leaves_the_picture_and_asks_in_small_batches():
    pixels = picture(8, 8)
    before, sizes = pixels.copy(), []

    def logits_of(batch):
        sizes.append(len(batch))
        return sees_one_place(8, 8)(batch)

    occlusion_map(logits_of, pixels, 1)
    assert (pixels == before).all()
    assert sizes[0] == 1
    assert max(sizes) <= 4
    assert sum(sizes) == 1 + 12 * 12


@pytest.mark.parametrize("shape", [(5, 5), (13, 40), (57, 31), (1, 1)])
def test_occlusion_covers_every_pixel_of_any_shape(shape):
    pixels = np.full((*shape, 3), 200, dtype=np.uint8)
    pixels[0, 0] = 0

    def logits_of(batch):
        dark = (batch < 100).all(axis=3).sum(axis=(1, 2)).astype(np.float32)
        return np.stack([dark, np.zeros_like(dark)], axis=1)

    heat = occlusion_map(logits_of, pixels, 0)
    assert heat.shape == shape
    assert np.isfinite(heat).all()


@pytest.mark.parametrize(
    ("patch_px", "stride_px"), [(0, 1), (4, 0), (4, 5), (57, 4), (-1, -1), (3, None)]
)
def test_occlusion_refuses_a_patch_that_leaves_gaps(patch_px, stride_px):
    with pytest.raises(ValueError, match="stride_px <= patch_px"):
        occlusion_map(
            sees_one_place(0, 0), picture(0, 0), 1, patch_px=patch_px, stride_px=stride_px
        )


@given(arrays.arrays(np.float32, (3, 4), elements=st.floats(-15, 15, width=32)), st.integers(0, 3))
def test_log_odds_are_those_of_the_probability(logits, index):
    exponentials = np.exp(logits.astype(np.float64))
    # Not 1 less the probability, which loses its digits where that is nearly 1.
    others = np.delete(exponentials, index, axis=1).sum(axis=1)
    odds = exponentials[:, index] / others
    np.testing.assert_allclose(log_odds(logits, index), np.log(odds), atol=1e-5)


def test_log_odds_of_huge_logits_are_finite():
    logits = np.float32([[1000, -1000, 999]])
    np.testing.assert_allclose(log_odds(logits, 0), [1.0])
    np.testing.assert_allclose(log_odds(logits, 1), [-2000 - np.log(1 + np.exp(-1))])


# -- drawn over the picture ------------------------------------------------------------------------
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

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.samples import canvas, shapes

SIDE = 64
places = st.tuples(st.floats(-2, 2), st.floats(-2, 2))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def is_mask(mask: np.ndarray, side_px: int = SIDE) -> bool:
    return (
        mask.shape == (side_px, side_px)
        and mask.dtype == np.float32
        and bool(((mask >= 0) & (mask <= 1)).all())
    )


def gradient() -> np.ndarray:
    x, y = canvas.axes(SIDE)
    return np.stack([(x + 1) / 2, (y + 1) / 2, np.full_like(x, 0.5)], axis=2).astype(np.float32)


MASKS = {
    "blob": lambda: canvas.blob(rng(), SIDE, (0, 0), 0.5, roughness=0.4),
    "cells": lambda: canvas.cells(SIDE, [(-0.5, 0), (0.5, 0), (0, 0.6)], 0.1),
    "ellipse": lambda: canvas.ellipse(SIDE, (0.1, 0), (0.5, 0.2), turn_deg=30, softness=0.3),
    "honeycomb": lambda: canvas.honeycomb(rng(), SIDE, 0.1),
    "polygon": lambda: canvas.polygon(SIDE, [(-0.5, -0.5), (0.5, -0.5), (0, 0.5)]),
    "spots": lambda: canvas.spots(SIDE, [(0, 0), (0.5, 0.5)], [0.2, 0.1]),
    "stroke": lambda: canvas.stroke(SIDE, [(-0.5, 0), (0.5, 0)], 0.1),
    "strokes": lambda: canvas.strokes(SIDE, [[(-0.5, 0), (0.5, 0)], [(0, -1), (0, 1)]], 0.1),
    "texture": lambda: canvas.texture(rng(), SIDE, 5),
}


@pytest.mark.parametrize("name", MASKS)
def test_mask_is_between_0_and_1_not_flat_and_repeatable(name):
    mask = MASKS[name]()
    assert is_mask(mask)
    assert mask.min() < 0.1
    assert mask.max() > 0.6
    assert mask.tobytes() == MASKS[name]().tobytes()


@given(
    centre=places,
    radii=st.tuples(st.floats(0.02, 2), st.floats(0.02, 2)),
    turn_deg=st.floats(-360, 360),
    softness=st.floats(0, 0.99),
)
def test_ellipse_equals_its_formula_on_every_pixel(centre, radii, turn_deg, softness):
    mask = canvas.ellipse(24, centre, radii, turn_deg=turn_deg, softness=softness)
    x, y = canvas.axes(24)
    dx, dy, angle = x.astype(float) - centre[0], y.astype(float) - centre[1], math.radians(turn_deg)
    along = (dx * math.cos(angle) + dy * math.sin(angle)) / radii[0]
    across = (dy * math.cos(angle) - dx * math.sin(angle)) / radii[1]
    rim = (1 - np.hypot(along, across)) / max(softness, 1e-3) + 0.5
    # The rim of a hard ellipse is steep: a rounding error of 1e-6 in the distance is 1e-3 here.
    assert np.allclose(mask, np.clip(rim, 0, 1), atol=0.02)


def test_ellipse_turns_clockwise():
    mask = canvas.ellipse(SIDE, (0, 0), (0.8, 0.1), turn_deg=45)
    assert mask[SIDE * 3 // 4, SIDE * 3 // 4] == 1, "down to the right"
    assert mask[SIDE // 4, SIDE * 3 // 4] == 0


def test_spots_are_the_largest_of_their_ellipses():
    centres, radii = [(0, 0), (0.1, 0.05), (0.9, -0.9)], [0.2, 0.3, 0.2]
    each = [
        canvas.ellipse(SIDE, centre, (radius, radius), softness=0.4)
        for centre, radius in zip(centres, radii, strict=True)
    ]
    assert np.array_equal(canvas.spots(SIDE, centres, radii), np.maximum.reduce(each))


def test_cells_are_parted_half_way():
    mask = canvas.cells(SIDE, [(-0.5, 0), (0.5, 0)], 0.1)
    assert (mask[:, SIDE // 2] == 0).all()
    assert mask[SIDE // 2, SIDE // 4] == mask[SIDE // 2, SIDE * 3 // 4] == 1


def test_rounded_stays_within_the_corners():
    square = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
    outline = canvas.rounded(square)
    assert len(outline) == 4 * 2**3
    assert max(max(abs(x), abs(y)) for x, y in outline) <= 0.5
    assert max(math.hypot(x, y) for x, y in outline) < math.hypot(0.5, 0.5) - 0.05


@pytest.mark.parametrize("blur_px", [0.3, 0.8, 1.4, 1.6, 4.0])
def test_blur_has_the_standard_deviation_it_is_asked_for(blur_px):
    point = np.zeros((SIDE, SIDE), dtype=np.float32)
    point[24:40, 24:40] = 1
    soft = canvas.blur(point, blur_px)
    profile = soft[SIDE // 2]
    edge = np.abs(np.diff(profile[:32].astype(float)))
    at = np.arange(len(edge)) - (edge * np.arange(len(edge))).sum() / edge.sum()
    assert math.sqrt((edge * at**2).sum() / edge.sum()) == pytest.approx(blur_px, rel=0.1)


def test_soft_filter_is_no_wider_than_a_pixel_for_no_blur():
    assert shapes.soft_filter(0.0).radius == 0


def test_texture_stretched_varies_less_along_x():
    mask = canvas.texture(rng(), SIDE, 12, octaves=1, stretch=4)
    assert np.abs(np.diff(mask, axis=1)).mean() < 0.5 * np.abs(np.diff(mask, axis=0)).mean()


def test_paint_changes_the_masked_pixels_only():
    picture = gradient()
    mask = canvas.ellipse(SIDE, (0.2, -0.3), (0.3, 0.2))
    painted = canvas.paint(picture, mask, (1.0, 0.0, 0.0))
    assert np.array_equal(painted[mask == 0], picture[mask == 0])
    assert np.allclose(painted[mask == 1], (1, 0, 0), atol=1e-6)
    half = mask[..., None] * np.float32(0.5)
    mixed = canvas.paint(picture, half[..., 0], gradient()[::-1])
    assert np.allclose(mixed, picture * (1 - half) + gradient()[::-1] * half, atol=1e-6)


def test_paint_leaves_its_input_alone_even_without_a_mask():
    picture = gradient()
    painted = canvas.paint(picture, np.zeros((SIDE, SIDE), dtype=np.float32), (0, 0, 0))
    assert np.array_equal(painted, picture)
    assert painted is not picture


def test_move_by_nothing_rounds_to_8_bits_and_no_more():
    assert np.abs(canvas.move(gradient()) - gradient()).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("how", "lands_at"),
    [
        ({"shift": (0.5, 0.0)}, (0.75, 0.0)),
        ({"shift": (0.0, -0.5)}, (0.25, -0.5)),
        ({"turn_deg": 90}, (0.0, 0.25)),
        ({"zoom": 2.0}, (0.5, 0.0)),
        ({"turn_deg": 90, "zoom": 2.0, "shift": (0.1, 0.0)}, (0.1, 0.5)),
    ],
)
def test_move_takes_a_dot_where_it_says(how, lands_at):
    dot = canvas.ellipse(SIDE, (0.25, 0.0), (0.06, 0.06))
    moved = canvas.move(np.repeat(dot[..., None], 3, axis=2), **how)[..., 0]
    x, y = canvas.axes(SIDE)
    centre = ((moved * x).sum() / moved.sum(), (moved * y).sum() / moved.sum())
    assert centre == pytest.approx(lands_at, abs=0.03)


@pytest.mark.parametrize("mean", [0.3, (0.5, 0.3, 0.2)])
def test_expose_gives_the_mean_it_is_asked_for(mean):
    exposed = canvas.expose(gradient() * 0.5, mean)
    wanted = mean if isinstance(mean, tuple) else (mean * 1, mean * 1, mean * 1)
    assert exposed.mean(axis=(0, 1)) == pytest.approx(wanted, abs=1e-3)
    assert exposed.dtype == np.float32


def test_expose_of_black_stays_black():
    assert canvas.expose(canvas.fill(8, (0, 0, 0)), 0.5).max() == 0


def test_light_stays_within_its_limits():
    grey = canvas.fill(SIDE, (0.5, 0.5, 0.5))
    levels = [canvas.light(grey, rng(seed)) for seed in range(40)]
    assert all(picture.dtype == np.float32 for picture in levels)
    largest = max(float(picture.max()) for picture in levels)
    assert 0.55 < largest <= 0.5 * (1.2 + 0.1 * math.sqrt(2)) * 1.05
    assert min(float(picture.min()) for picture in levels) >= 0.5 * (0.8 - 0.142 - 0.15) * 0.95


def test_finish_adds_noise_of_the_stated_size():
    image = canvas.finish(canvas.fill(128, (0.5, 0.5, 0.5)), rng(), noise=0.02, blur_px=0)
    assert (image.mode, image.size) == ("RGB", (128, 128))
    assert np.asarray(image).std() / 255 == pytest.approx(0.02, rel=0.05)

"""The brushes draw what their words say: places, angles, widths and strengths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from pipelines.samples import canvas, cutout
from pipelines.samples.pen import Pen

SIDE = 64
MASKS = {
    "blob": lambda rng: canvas.blob(rng, SIDE, (0, 0), 0.5, roughness=0.4),
    "cells": lambda _: canvas.cells(SIDE, [(-0.5, 0), (0.5, 0), (0, 0.6)], 0.1),
    "ellipse": lambda _: canvas.ellipse(SIDE, (0.1, 0), (0.5, 0.2), turn_deg=30, softness=0.3),
    "honeycomb": lambda rng: canvas.honeycomb(rng, SIDE, 0.1),
    "polygon": lambda _: canvas.polygon(SIDE, [(-0.5, -0.5), (0.5, -0.5), (0, 0.5)]),
    "spots": lambda _: canvas.spots(SIDE, [(0, 0), (0.5, 0.5)], [0.2, 0.1]),
    "strokes": lambda _: canvas.strokes(SIDE, [[(-0.5, 0), (0.5, 0)], [(0, -1), (0, 1)]], 0.1),
    "texture": lambda rng: canvas.texture(rng, SIDE, 5),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gradient() -> np.ndarray:
    x, y = canvas.axes(SIDE)
    return np.stack([(x + 1) / 2, (y + 1) / 2, np.full_like(x, 0.5)], axis=2).astype(np.float32)


def middle(mask: np.ndarray) -> tuple[float, float]:
    """Where what is white stands, in half sides."""
    x, y = canvas.axes(len(mask))
    return ((mask * x).sum() / mask.sum(), (mask * y).sum() / mask.sum())


@pytest.mark.parametrize("name", MASKS)
def test_mask_is_between_0_and_1_not_flat_and_repeatable(name):
    mask = MASKS[name](rng())
    assert (mask.shape, mask.dtype) == ((SIDE, SIDE), np.float32)
    assert 0 <= mask.min() < 0.1
    assert 0.6 < mask.max() <= 1
    assert mask.tobytes() == MASKS[name](rng()).tobytes()


@pytest.mark.parametrize("blur_px", [0.3, 0.8, 1.4, 1.6, 4.0])
def test_blur_has_the_standard_deviation_it_is_asked_for(blur_px):
    point = np.zeros((SIDE, SIDE), dtype=np.float32)
    point[24:40, 24:40] = 1
    edge = np.abs(np.diff(canvas.blur(point, blur_px)[SIDE // 2, :32].astype(float)))
    at = np.arange(len(edge)) - (edge * np.arange(len(edge))).sum() / edge.sum()
    assert math.sqrt((edge * at**2).sum() / edge.sum()) == pytest.approx(blur_px, rel=0.1)


def test_cover_changes_the_masked_pixels_only_and_not_its_input():
    picture = gradient()
    mask = canvas.ellipse(SIDE, (0.2, -0.3), (0.3, 0.2))
    covered = canvas.cover(picture, mask, (1.0, 0.0, 0.0))
    assert np.array_equal(covered[mask == 0], picture[mask == 0])
    assert np.allclose(covered[mask == 1], (1, 0, 0), atol=1e-6)
    assert np.array_equal(picture, gradient())


@pytest.mark.parametrize("mean", [0.3, (0.5, 0.3, 0.2)])
def test_expose_gives_the_mean_it_is_asked_for(mean):
    wanted = mean if isinstance(mean, tuple) else (mean,) * 3
    exposed = canvas.expose(gradient() * np.float32(0.5), mean)
    assert exposed.mean(axis=(0, 1)) == pytest.approx(wanted, abs=1e-3)


def test_finish_adds_noise_of_the_stated_size():
    image = canvas.finish(canvas.fill(128, (0.5, 0.5, 0.5)), rng(), noise=0.02, blur_px=0)
    assert np.asarray(image).std() / 255 == pytest.approx(0.02, rel=0.05)


MOVES = [
    ({"shift": (0.2, 0.0)}, (0.45, 0.0)),
    ({"shift": (0.0, -0.5)}, (0.25, -0.5)),
    ({"turn_deg": 90}, (0.0, 0.25)),
    ({"zoom": 2.0}, (0.5, 0.0)),
    ({"turn_deg": 90, "zoom": 2.0, "shift": (0.1, 0.0)}, (0.1, 0.5)),
]


@pytest.mark.parametrize(("how", "lands_at"), MOVES)
def test_camera_cutout_and_pen_turn_clockwise_then_zoom_and_shift(how, lands_at):
    how = {"turn_deg": 0.0, "zoom": 1.0, "shift": (0.0, 0.0)} | how
    dot = canvas.ellipse(SIDE, (0.25, 0.0), (0.06, 0.06))
    moved = canvas.move(np.repeat(dot[..., None], 3, axis=2), **how)[..., 0]
    assert middle(moved) == pytest.approx(lands_at, abs=0.03)
    figure = Image.new("RGBA", (SIDE, SIDE), (255, 255, 255, 0))
    figure.putalpha(Image.fromarray((dot * 255).astype(np.uint8)))
    alpha = np.asarray(cutout.placed(figure, **how).getchannel("A")).astype(float)
    assert middle(alpha) == pytest.approx(lands_at, abs=0.03)
    pen = Pen(Image.new("RGB", (2 * SIDE, 2 * SIDE)), **how)
    pen.oval((0.25, 0.0), (0.06, 0.06), (1.0, 1.0, 1.0))
    assert middle(pen.picture()[..., 0]) == pytest.approx(lands_at, abs=0.03)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.25])
def test_pen_shades_where_it_lies(gain):
    pen = Pen(Image.new("RGB", (160, 160), (100, 100, 100)), 0.0, 1.0, (0.0, 0.0))
    pen.shade((0.0, 0.0), (0.5, 0.5), gain)
    picture = pen.picture()[..., 0]
    assert picture[40, 40] == pytest.approx(gain * 100 / 255, abs=0.01)
    assert picture[2, 2] == pytest.approx(100 / 255, abs=0.01)

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.samples.pen import Pen, ellipse_points, ink, mirrored, mix

WHITE = (1.0, 1.0, 1.0)


def new_pen(turn_deg: float = 0.0, zoom: float = 1.0, shift=(0.0, 0.0), grey: int = 0) -> Pen:
    return Pen(Image.new("RGB", (160, 160), (grey, grey, grey)), turn_deg, zoom, shift)


def centre_of_white(pen: Pen) -> tuple[float, float]:
    """Of what was drawn, in half sides."""
    weight = pen.picture()[..., 0]
    rows, columns = np.indices(weight.shape)
    side_px = weight.shape[0]
    x, y = ((axis * weight).sum() / weight.sum() + 0.5 for axis in (columns, rows))
    return (x / side_px * 2 - 1, y / side_px * 2 - 1)


@pytest.mark.parametrize(
    ("turn_deg", "zoom", "shift", "expected"),
    [
        (0, 1.0, (0.0, 0.0), (0.5, 0.0)),
        (90, 1.0, (0.0, 0.0), (0.0, 0.5)),
        (0, 0.5, (0.0, 0.0), (0.25, 0.0)),
        (0, 1.0, (-0.5, 0.25), (0.0, 0.25)),
        (180, 1.0, (0.25, 0.0), (-0.25, 0.0)),
    ],
)
def test_pen_turns_clockwise_then_zooms_and_shifts(turn_deg, zoom, shift, expected):
    pen = new_pen(turn_deg, zoom, shift)
    pen.oval((0.5, 0.0), (0.1, 0.1), WHITE)
    assert centre_of_white(pen) == pytest.approx(expected, abs=0.02)


def test_picture_has_half_the_size_of_the_scene():
    picture = new_pen(grey=128).picture()
    assert picture.shape == (80, 80, 3)
    assert picture.dtype == np.float32
    assert picture == pytest.approx(128 / 255, abs=1e-3)


def test_shape_goes_through_its_points_and_bulges_between():
    pen = new_pen()
    pen.shape([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)], WHITE)
    white = pen.picture()[..., 0] > 0.5
    # A square of side 1 covers a quarter; the curve through its corners covers more.
    assert 0.26 < white.mean() < 0.35
    assert white[40, 17]
    assert not white[18, 18]


def test_line_is_as_wide_as_asked():
    pen = new_pen(zoom=0.5)
    pen.line([(-2.0, 0.0), (2.0, 0.0)], 0.4, WHITE)
    assert pen.picture()[:, 40, 0].sum() == pytest.approx(0.4 * 0.5 * 40, abs=0.6)


def test_opacity_mixes_with_what_lies_below():
    pen = new_pen()
    pen.shape([(-2, -2), (2, -2), (2, 2), (-2, 2)], WHITE, 0.25)
    assert pen.picture()[40, 40, 0] == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("gain", [0.5, 1.0, 1.25])
def test_shade_scales_the_brightness_where_it_lies(gain):
    pen = new_pen(grey=100)
    pen.shade((0.0, 0.0), (0.5, 0.5), gain)
    picture = pen.picture()[..., 0]
    assert picture[40, 40] == pytest.approx(gain * 100 / 255, abs=0.01)
    assert picture[2, 2] == pytest.approx(100 / 255, abs=0.01)


def test_mirrored_is_the_same_on_both_sides():
    assert mirrored([(0.25, 0.0), (0.5, 1.0)], x=1.0) == [
        (1.25, 0.0),
        (1.5, 1.0),
        (0.5, 1.0),
        (0.75, 0.0),
    ]


def test_ellipse_points_close_the_ring():
    points = ellipse_points((1.0, 0.0), (0.5, 0.25))
    assert len(points) == 13
    assert points[0] == points[-1] == pytest.approx((1.5, 0.0))
    for x, y in points:
        assert ((x - 1) / 0.5) ** 2 + (y / 0.25) ** 2 == pytest.approx(1)


def test_ink_and_mix():
    assert ink((0.0, 0.5, 1.7), 0.2) == (0, 128, 255, 51)
    assert mix((0.0, 0.2, 1.0), (1.0, 0.2, 0.0), 0.25) == pytest.approx((0.25, 0.2, 0.75))

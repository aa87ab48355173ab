"""The figure of a board: it draws whatever a board may hold, and the same bytes for the same."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.plots.board import Point, board_figure


def point(number: int, precision: str = "fp32", *, is_on_front: bool = True) -> Point:
    accuracy = 0.9 - number / 100
    return Point(
        title=f"mobilenet_v2 x0.{number}, 160 px, {precision}",
        precision=precision,
        accuracy=accuracy,
        low=accuracy - 0.05,
        high=accuracy + 0.02,
        ms=10.0 / (1 + number),
        multiply_adds=300.0 / (1 + number),
        is_on_front=is_on_front,
    )


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


POINTS = [point(1), point(2, "int8"), point(3, is_on_front=False)]


@pytest.mark.parametrize("points", [[], POINTS[:1], POINTS, POINTS[2:]])
def test_any_board_is_drawn(points):
    assert pixels(board_figure(points, {"fp32": None, "int8": -0.5}, "cats")).shape[2] == 3


def test_same_points_give_the_same_bytes_and_another_front_gives_others():
    drawn = [board_figure(points, {"fp32": 0.9}, "cats") for points in (POINTS, POINTS)]
    assert drawn[0] == drawn[1]
    other = [POINTS[0], POINTS[1], point(3)]
    assert board_figure(other, {"fp32": 0.9}, "cats") != drawn[0]


def test_names_of_a_long_front_get_room_of_their_own():
    few, many = (
        pixels(board_figure([point(i) for i in range(n)], {}, "cats")).shape[0] for n in (1, 9)
    )
    assert many > few

"""Figures inside a page: small, legible, and never larger than they were."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.reports.blocks import embedded


def png(width: int, height: int, *, is_noise: bool) -> bytes:
    pixels = np.full((height, width, 3), 255, np.uint8)
    if is_noise:
        pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1600, 800), (800, 400)), ((400, 300), (400, 300)), ((900, 9000), (160, 1600))],
)
def test_a_figure_is_scaled_to_its_display_and_never_up(size, expected):
    copy = embedded(png(*size, is_noise=False), 60_000)
    assert (copy.width_px, copy.height_px) == expected
    with Image.open(io.BytesIO(copy.webp)) as image:
        assert (image.format, image.size) == ("WEBP", expected)


def test_bytes_are_bounded_by_quality_then_by_size_and_always_the_same():
    whole = png(1600, 1200, is_noise=True)
    large, small = (embedded(whole, most) for most in (150_000, 60_000))
    assert len(large.webp) <= 150_000
    assert len(small.webp) < len(large.webp)
    assert embedded(whole, 60_000) == small

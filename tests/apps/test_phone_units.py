"""The phone page's pure parts, run by Node: its own tests, and pictures of every size through
Python's preprocessing and the page's.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.preprocess import Interpolation, Preprocess, View
from tests.vitest import vitest

N_CASES = 60

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]


def write_cases(folder: Path) -> None:
    """Random pictures of random sizes, with what `Preprocess` makes of them."""
    rng = np.random.default_rng(20261122)
    for number in range(N_CASES):
        width, height = (int(side) for side in rng.integers(1, 400, 2))
        resize_px = int(rng.integers(1, 96))
        crop_px = int(rng.integers(max(1, resize_px // 2), resize_px + 1))
        grey = number % 5 == 0
        side_px = int(rng.integers(1, 64)) if number % 3 == 0 else None
        border_mask = float(rng.uniform(0, 0.45)) if number % 4 == 0 else 0.0
        interpolation: Interpolation = "bicubic" if number % 2 else "bilinear"
        # Noise, where rounding shows most, and flat bright pictures, where clipping does.
        low = 250 if number % 7 == 0 else 0
        pixels = rng.integers(low, 256, (height, width, 3), dtype=np.uint8)
        if whole := number % 8 == 5:
            crop_px, side_px, border_mask = resize_px, None, 0.0
        view = View(grey=grey, side_px=side_px, border_mask=border_mask, whole=whole)
        expected = Preprocess(resize_px, crop_px, view, interpolation=interpolation)(
            Image.fromarray(pixels)
        )
        case = {
            "width": width,
            "height": height,
            "rgb": base64.b64encode(pixels.tobytes()).decode("ascii"),
            "spec": {
                "resizePx": resize_px,
                "cropPx": crop_px,
                "interpolation": interpolation,
                "grey": grey,
                "sidePx": side_px,
                "borderMask": border_mask,
                "whole": whole,
                "range": None,
                "maxAspect": 20,
            },
            "expected": base64.b64encode(expected.tobytes()).decode("ascii"),
        }
        path = folder / f"{number:02d}_{width}x{height}_to_{resize_px}_{crop_px}.json"
        path.write_text(json.dumps(case), encoding="utf-8")


def test_page_and_python_agree_to_the_last_bit(tmp_path: Path) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    write_cases(cases)
    names = vitest(tmp_path, FIELDLENS_PREPROCESS_CASES=cases)
    assert sum("are Python's to the last bit" in name for name in names) == N_CASES + 3

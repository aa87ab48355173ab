"""What a view leaves of a file's facts."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from pipelines.audit.features import view_facts
from pipelines.data.images import open_image
from pipelines.data.preprocess import Preprocess, View


def smooth(width_px: int, height_px: int) -> Image.Image:
    y, x = np.mgrid[0:height_px, 0:width_px]
    pixels = np.stack([255 * x / width_px, 255 * y / height_px, 90 + 0 * x], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_size_and_type_are_the_same_for_all() -> None:
    preprocess = Preprocess(40, 32)
    found = [view_facts(preprocess(smooth(*size))) for size in [(300, 200), (50, 90), (20, 20)]]
    assert {(facts.width_px, facts.height_px) for facts in found} == {(32, 32)}


def test_mode_says_whether_the_view_is_grey() -> None:
    image = smooth(60, 50)
    grey = image.convert("L").convert("RGB")
    off, on = Preprocess(40, 32), Preprocess(40, 32, View(grey=True))
    assert [view_facts(off(each)).mode for each in (image, grey)] == ["RGB", "L"]
    assert [view_facts(on(each)).mode for each in (image, grey)] == ["L", "L"]


def test_bytes_tell_of_detail_and_not_of_the_codec() -> None:
    image = smooth(60, 50)
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    preprocess = Preprocess(90, 80)
    assert view_facts(preprocess(noisy)).n_bytes > 2 * view_facts(preprocess(image)).n_bytes
    lossless = []
    for form in ("PNG", "BMP", "TIFF"):
        buffer = io.BytesIO()
        image.save(buffer, form)
        lossless.append(view_facts(preprocess(open_image(buffer.getvalue()).rgb)))
    assert len(set(lossless)) == 1


def test_a_grey_view_is_not_smaller_for_its_mode_alone() -> None:
    grey = Preprocess(40, 32)(smooth(60, 50).convert("L").convert("RGB"))
    tinted = grey.copy()
    tinted[0, 0, 0] ^= 1
    assert abs(view_facts(grey).n_bytes - view_facts(tinted).n_bytes) < 12

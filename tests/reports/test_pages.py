from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.reports.pages import embedded, run_markdown
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.trust import read_audit


@pytest.fixture
def described(tested_project):
    """Describes the run of the tiny task, its audit and its source of data changed."""
    files = tested_project.task("tiny")
    bundle = read_bundle(files.bundle).model_dump()
    audit = read_audit(files.audit, "tiny").model_dump()

    def make(data_source: str = "folder", **of_audit: Any) -> str:
        provenance = bundle["provenance"] | {"data_source": data_source}
        changed = bundle | {"audit": audit | of_audit, "provenance": provenance}
        metrics = json.loads(files.metrics.read_text())
        return run_markdown(Bundle.model_validate(changed), metrics)

    return make


def test_run_markdown_has_the_blind_models_beside_the_accuracy(described):
    text = described()
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line[:1] == "|"]
    assert names.index("Accuracy") < names.index("Blind macro-F1") < names.index("Test images")
    assert "Gate" not in names
    assert ">" not in text


def test_run_markdown_warns_of_a_shortcut_and_of_painted_pictures(described):
    text = described("sample", verdict="shortcut")
    assert "> **Sample data: these numbers come from synthetic images." in text
    assert "> **tiny: the data hold a shortcut." in text


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

"""The kinds beside classification on the phone page: answers as the predictor gives them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from PIL import Image

from pipelines.paths import Paths
from pipelines.serving.bundle import Artefact, Bundle
from pipelines.serving.predictor import Predictor

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import Browser, expect

from tests.apps.conftest import encoded
from tests.apps.phone_browsing import answered, axe_faults, choose, open_task, opened, served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(280)]

ROOT = Path(__file__).resolve().parents[2]
SIDE = 64

#: Boxes that are the same of every picture: certain, less certain, in the margin alone, padding.
_ROWS = (
    "0.125, 0.25, 0.5, 0.75, 0.9, 0, 0.5, 0.5, 0.75, 0.9, 0.4, 1, "
    "0, 0, 1, 0.05, 0.8, 1, 0, 0, 0, 0, 0, 0"
)
_BODIES = {
    "detection": f"""
        => (float[1, 4, 6] boxes, float[n, 3] embedding)
        <float[1, 4, 6] rows = {{{_ROWS}}}, int64[2] axes = {{1, 2}}> {{
            wide = Cast<to = 1>(pixels)
            embedding = ReduceMean<keepdims = 0>(wide, axes)
            boxes = Identity(rows)
        }}""",
    # What is bright in red.
    "segmentation": f"""
        => (float[n, 1, {SIDE}, {SIDE}] mask, float[n, 3] embedding)
        <int64[2] axes = {{1, 2}}, int64[1] from = {{0}}, int64[1] to = {{1}},
         int64[1] last = {{3}}, float white = {{255.0}}> {{
            wide = Cast<to = 1>(pixels)
            embedding = ReduceMean<keepdims = 0>(wide, axes)
            red = Slice(wide, from, to, last)
            first = Transpose<perm = [0, 3, 1, 2]>(red)
            mask = Div(first, white)
        }}""",
}
_OUTPUTS = {
    "detection": {"name": "boxes", "shape": [-1, 4, 6]},
    "segmentation": {"name": "mask", "shape": [-1, 1, SIDE, SIDE]},
}
_OWN = {
    "detection": {
        "task": "hard_hat",
        "labels": ["helmet", "no_helmet"],
        "preprocess": {"resize_px": SIDE, "crop_px": SIDE, "whole": True},
        "box_points": {
            "helmet": {"threshold": 0.6, "recall": 0.8, "precision": 0.9, "n_boxes": 10}
        },
    },
    "segmentation": {
        "task": "polyp",
        "labels": ["polyp"],
        "preprocess": {"resize_px": SIDE, "crop_px": SIDE},
    },
}


def write_bundle(root: Path, kind: str) -> Bundle:
    """A project with a model of this kind that sees little: enough to be drawn."""
    text = (
        f'<ir_version: 10, opset_import: ["": 20]>\n'
        f"net (uint8[n, {SIDE}, {SIDE}, 3] pixels) {_BODIES[kind]}"
    )
    data = onnx.parser.parse_model(text).SerializeToString()
    document = json.loads((ROOT / "tests/golden/bundle_schema_3.json").read_text(encoding="utf-8"))
    document |= {
        **{"kind": kind, "label_names": {}, "label_meanings": {}, "operating_points": {}},
        **{"audit": None, "abstention": None, "metrics": {}, "intervals": {}, **_OWN[kind]},
    }
    document["input"] |= {"name": "pixels", "shape": [-1, SIDE, SIDE, 3]}
    embedding = {"name": "embedding", "shape": [-1, 3], "dtype": "float32", "meaning": "colour"}
    document["outputs"] = [{**_OUTPUTS[kind], "dtype": "float32", "meaning": kind}, embedding]
    document["artefacts"] = [
        Artefact.of(f"model_{precision}.onnx", precision, data).model_dump()
        for precision in ("fp32", "int8")
    ]
    bundle = Bundle.model_validate(document)
    files = Paths(root).task(bundle.task)
    files.bundle.parent.mkdir(parents=True)
    for artefact in bundle.artefacts:
        files.bundle.with_name(artefact.name).write_bytes(data)
    files.bundle.write_text(bundle.to_json(), encoding="utf-8")
    return bundle


def turned(size: tuple[int, int]) -> bytes:
    """A photo that is stored lying on its side (EXIF orientation 6); of this upright size."""
    pixels = np.random.default_rng(1).integers(0, 256, (size[0], size[1], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for kind in _OWN:
        write_bundle(folder, kind)
    return folder


@pytest.fixture(scope="module")
def url(root: Path, browser: Browser) -> Iterator[str]:
    with served(root) as address:
        yield address


def test_boxes_are_drawn_where_the_predictor_finds_them(browser, url, root) -> None:
    picture = turned((300, 200))
    predictor: Predictor = Predictor.load(Paths(root).task("hard_hat").bundle)
    expected = predictor.predict(picture)
    assert len(expected.boxes) == 2
    with opened(browser) as page:
        open_task(page, url, "hard_hat")
        choose(page, picture, name="photo.jpg")
        assert answered(page)["label"] == "Helmet 1"
        rects = page.locator(".overlay rect:not([hidden])")
        expect(rects).to_have_count(1)
        assert page.get_attribute(".overlay", "viewBox") == "0 0 300 200"
        shown = [float(rects.first.get_attribute(side)) for side in ("x", "y", "width", "height")]
        box = expected.boxes[0]
        assert shown == pytest.approx([box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0], abs=1e-3)
        expect(page.locator('.counts [data-label="no_helmet"] .count-n')).to_have_text("0")
        page.locator("#certainty").fill("30")
        expect(rects).to_have_count(2)
        expect(page.locator('.counts [data-label="no_helmet"] .count-n')).to_have_text("1")
        page.get_by_role("button", name="As chosen on pictures kept aside").click()
        expect(rects).to_have_count(1)
        assert axe_faults(page) == []


def test_mask_lies_over_what_the_predictor_sees(browser, url, root) -> None:
    picture = Image.new("RGB", (320, 160))
    picture.paste((255, 40, 40), (150, 40, 210, 100))
    predictor: Predictor = Predictor.load(Paths(root).task("polyp").bundle)
    region = predictor.predict(picture).regions["polyp"]
    assert region.area_share == pytest.approx(60 * 60 / 160**2, abs=0.01)
    alpha = """([x, y]) => {
        const canvas = document.querySelector("canvas.overlay");
        return canvas.getContext("2d").getImageData(x, y, 1, 1).data[3];
    }"""
    # The test reads the canvas, which Chromium has advice for.
    with opened(browser, allowed="willReadFrequently") as page:
        open_task(page, url, "polyp")
        choose(page, encoded(picture))
        assert answered(page)["label"] == "Polyp"
        expect(page.locator('.counts [data-label="polyp"] .count-n')).to_have_text(
            f"{region.area_share:.0%}"
        )
        assert page.evaluate(alpha, [180, 70]) == round(0.4 * 255)
        assert page.evaluate(alpha, [100, 70]) == page.evaluate(alpha, [180, 120]) == 0
        page.locator("#opacity").fill("80")
        assert page.evaluate(alpha, [180, 70]) == round(0.8 * 255)
        assert axe_faults(page) == []

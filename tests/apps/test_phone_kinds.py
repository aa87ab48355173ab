"""The kinds beside classification on the phone page: answers as the predictor gives them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from PIL import Image

from pipelines.paths import Paths
from pipelines.serving.bundle import Artefact, Bundle
from pipelines.serving.embedding import VECTOR_NAME
from pipelines.serving.gallery import Gallery, Picture, gallery_file, gallery_text
from pipelines.serving.predictor import Predictor

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import Browser, Page, expect

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
    # The mean colour's direction.
    "embedding": """
        => (float[n, 3] vector, float[n, 3] embedding) <int64[2] axes = {1, 2}> {
            wide = Cast<to = 1>(pixels)
            embedding = ReduceMean<keepdims = 0>(wide, axes)
            vector = LpNormalization<axis = 1, p = 2>(embedding)
        }""",
}
_OUTPUTS = {
    "detection": {"name": "boxes", "shape": [-1, 4, 6]},
    "segmentation": {"name": "mask", "shape": [-1, 1, SIDE, SIDE]},
    "embedding": {"name": "vector", "shape": [-1, 3]},
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
    "embedding": {
        "task": "flowers",
        "labels": [],
        "preprocess": {"resize_px": SIDE, "crop_px": SIDE},
    },
}
#: Colours of the gallery, two of a kind; far enough apart that half precision changes no order.
_KNOWN = {
    "red/1.png": (250, 20, 10),
    "red/2.png": (240, 90, 30),
    "green/1.png": (30, 220, 40),
    "green/2.png": (90, 240, 20),
    "blue/1.png": (10, 60, 230),
    "blue/2.png": (90, 110, 240),
}


def write_bundle(root: Path, kind: str) -> Bundle:
    """A project with a model of this kind that sees little: enough to be drawn."""
    text = (
        f'<ir_version: 10, opset_import: ["": 20]>\n'
        f"net (uint8[n, {SIDE}, {SIDE}, 3] pixels) {_BODIES[kind]}"
    )
    data = onnx.parser.parse_model(text).SerializeToString()
    document = json.loads((ROOT / "tests/golden/bundle_schema_3.json").read_text(encoding="utf-8"))
    point = document["operating_points"]["red_tile"]
    document |= {
        **{"kind": kind, "label_names": {}, "label_meanings": {}, "operating_points": {}},
        **{"audit": None, "abstention": None, "metrics": {}, "intervals": {}, **_OWN[kind]},
    }
    document["input"] |= {"name": "pixels", "shape": [-1, SIDE, SIDE, 3]}
    if kind == "embedding":
        document["operating_points"] = {"same_identity": {**point, "threshold": 0.985}}
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


def lay_gallery(root: Path, colours: dict[str, tuple[int, int, int]], sha256: str = "") -> None:
    """Known pictures beside the embedding's bundle, each with itself as thumbnail.

    Args:
        sha256: of the model that is said to have made it; the bundle's own by default.
    """
    path = Paths(root).task("flowers").bundle
    predictor: Predictor = Predictor.load(path)
    pictures, vectors = [], []
    for name, colour in colours.items():
        image = Image.new("RGB", (SIDE, SIDE), colour)
        thumbnail = base64.b64encode(encoded(image, "JPEG")).decode("ascii")
        pictures.append(Picture(path=name, identity=name.split("/")[0], thumbnail=thumbnail))
        vectors.append(predictor.outputs(predictor.pixels(image)[np.newaxis])[VECTOR_NAME][0])
    made_by = sha256 or predictor.bundle.files[predictor.precision].sha256
    text = gallery_text("flowers", made_by, Gallery(pictures, np.stack(vectors)))
    gallery_file(path.parent).write_text(text, encoding="utf-8")


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


def shown_neighbours(page: Page) -> list[tuple[str, float, str]]:
    """Path, distance and verdict of each neighbour on the page."""
    rows = page.eval_on_selector_all(
        ".neighbours li:not([hidden])", "rows => rows.map(row => ({...row.dataset}))"
    )
    return [(row["path"], float(row["distance"]), row["same"]) for row in rows]


def expect_neighbours(page: Page, root: Path, picture: bytes) -> None:
    """The page shows what the predictor says of this picture."""
    said = Predictor.load(Paths(root).task("flowers").bundle).predict(picture)
    assert len(said.neighbours) == 5
    for shown, near in zip(shown_neighbours(page), said.neighbours, strict=True):
        path, distance, same = shown
        assert (path, same) == (near.path, str(near.is_same).lower())
        assert distance == pytest.approx(near.distance, abs=1e-6)


def test_neighbours_are_the_predictors_also_offline(browser, root, tmp_path) -> None:
    project = Path(shutil.copytree(root, tmp_path / "project"))
    lay_gallery(project, _KNOWN)
    orange, teal = (
        encoded(Image.new("RGB", (120, 90), colour)) for colour in ((250, 120, 20), (20, 150, 160))
    )
    with served(project) as url, opened(browser, allowed="ERR_INTERNET_DISCONNECTED") as page:
        open_task(page, url, "flowers")
        choose(page, orange)
        assert answered(page)["label"] == "red"
        expect_neighbours(page, project, orange)
        first = page.locator(".neighbours li").first
        expect(first.locator("img")).to_have_js_property("naturalWidth", SIDE)
        expect(first.locator("img")).to_have_attribute("alt", "Picture of red in the gallery")
        expect(first).to_contain_text("same")
        expect(page.locator(".about")).to_contain_text("6 pictures of 3 identities")
        assert axe_faults(page) == []
        choose(page, teal)
        assert answered(page, 2)["label"] == "blue"
        expect_neighbours(page, project, teal)
        expect(page.locator(".answer")).to_contain_text("near enough to be the same")
        page.evaluate("navigator.serviceWorker.ready.then(() => null)")
        page.context.set_offline(True)
        page.reload()
        page.wait_for_selector(".task[data-ready=true]")
        choose(page, orange)
        answered(page)
        expect_neighbours(page, project, orange)


def test_no_gallery_another_models_and_a_newer_one(browser, root, tmp_path) -> None:
    project = Path(shutil.copytree(root, tmp_path / "project"))
    picture = encoded(Image.new("RGB", (120, 90), (250, 120, 20)))
    with served(project) as url, opened(browser) as page:
        open_task(page, url, "flowers")
        choose(page, picture)
        assert answered(page)["label"] == "There is no gallery beside the model"
        expect(page.locator(".answer")).to_contain_text("fieldlens gallery --task flowers")
        expect(page.locator(".neighbours")).to_be_hidden()
        # What is on the phone answers until there is one that fits.
        lay_gallery(project, _KNOWN, sha256="0" * 64)
        page.reload()
        trouble = page.locator(".news .trouble")
        expect(trouble).to_contain_text("was made by another model")
        lay_gallery(project, _KNOWN)
        page.get_by_role("button", name="Try again").click()
        page.get_by_role("button", name="Use the newer gallery").click()
        choose(page, picture)
        expect(page.locator(".answer")).to_have_attribute("data-label", "red")
        expect_neighbours(page, project, picture)
        lay_gallery(project, {"rust/1.png": (250, 120, 20), **_KNOWN})
        page.reload()
        expect(page.locator(".news")).to_contain_text("A newer gallery is ready.")
        page.get_by_role("button", name="Use the newer gallery").click()
        choose(page, picture)
        expect(page.locator(".answer")).to_have_attribute("data-label", "rust")
    with served(project) as url, opened(browser) as page:
        lay_gallery(project, _KNOWN, sha256="0" * 64)
        page.goto(f"{url}#/flowers")
        trouble = page.locator(".loading .trouble")
        expect(trouble).to_contain_text("was made by another model")

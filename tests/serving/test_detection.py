"""Boxes in px of the upright picture; tests/golden/detection.json is for every implementation."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from PIL import Image

from pipelines.errors import BundleError
from pipelines.serving.bundle import Artefact, Bundle, read_bundle
from pipelines.serving.detection import Boxes, ServedDetection, count_intervals
from pipelines.serving.predictor import Predictor

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = json.loads((GOLDEN / "detection.json").read_text(encoding="utf-8"))["cases"]
SIDE = 64


def bundle_of(
    labels: list[str], thresholds: dict[str, float], side_px: int = SIDE, n: int = 4
) -> Bundle:
    document = read_bundle(GOLDEN / "bundle_schema_3.json", verify=False).model_dump()
    points = {
        label: {"threshold": at, "recall": 0.8, "precision": 0.9, "n_boxes": 10}
        for label, at in thresholds.items()
    }
    boxes = {"name": "boxes", "shape": (-1, n, 6), "dtype": "float32", "meaning": "boxes"}
    document |= {"kind": "detection", "labels": labels, "label_names": {}, "label_meanings": {}}
    document |= {"operating_points": {}, "box_points": points, "audit": None, "abstention": None}
    document["outputs"] = (boxes, document["outputs"][1])
    document["input"]["shape"] = (-1, side_px, side_px, 3)
    document["preprocess"] = {"resize_px": side_px, "crop_px": side_px, "whole": True}
    return Bundle.model_validate(document)


@pytest.mark.parametrize("case", CASES)
def test_golden_boxes(case):
    bundle = bundle_of(case["labels"], case["thresholds"], case["side_px"], len(case["rows"]))
    geometry = bundle.preprocess.build().geometry(tuple(case["size"]))
    assert geometry == pytest.approx(np.array(case["geometry"]))
    said = ServedDetection().decode({"boxes": np.float32(case["rows"])}, bundle, geometry)
    assert [[box.label, box.is_counted] for box in said.boxes] == case["boxes"]
    corners = [[box.x0, box.y0, box.x1, box.y1] for box in said.boxes]
    assert np.array(corners) == pytest.approx(np.array(case["corners"]), abs=1e-3)
    assert said.counts(case["labels"]) == case["counts"]


def colours(side_px: int) -> bytes:
    """A model with the outputs of a detection of one box; they say nothing."""
    text = f"""
        <ir_version: 10, opset_import: ["": 20]>
        colours (uint8[n, {side_px}, {side_px}, 3] pixels)
        => (float[n, 1, 6] boxes, float[n, 3] embedding)
        <int64[2] axes = {{1, 2}}, int64[1] second = {{1}}> {{
            wide = Cast<to = 1>(pixels)
            embedding = ReduceMean<keepdims = 0>(wide, axes)
            six = Concat<axis = 1>(embedding, embedding)
            boxes = Unsqueeze(six, second)
        }}"""
    return onnx.parser.parse_model(text).SerializeToString()


class Spotting(Predictor[Boxes]):
    """Its boxes are those around what is bright."""

    def outputs(self, pixels):
        found = super().outputs(pixels)
        bright = pixels[0, :, :, 0] > 190
        rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
        corners = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / SIDE
        return found | {"boxes": np.float32([[[*corners, 1, 0]]])}


@pytest.fixture(scope="module")
def predictor() -> Predictor[Boxes]:
    bundle = bundle_of(["spot"], {"spot": 0.5}, n=1)
    model = colours(SIDE)
    embedding = bundle.outputs[1].model_copy(update={"shape": (-1, 3)})
    files = tuple(Artefact.of(f"{key}.onnx", key, model) for key in ("fp32", "int8"))
    bundle = bundle.model_copy(
        update={"outputs": (bundle.outputs[0], embedding), "artefacts": files}
    )
    return Spotting(bundle, model, "fp32")


def spotted(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    picture = Image.new("RGB", size, (20, 20, 20))
    picture.paste((255, 255, 255), box)
    return picture


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((640, 480), (100, 60, 300, 260)),
        ((480, 640), (0, 0, 200, 120)),
        ((640, 32), (300, 0, 420, 32)),
        ((40, 800), (0, 500, 40, 700)),
        ((64, 64), (8, 8, 40, 56)),
        ((4000, 3000), (2500, 1800, 3900, 2950)),
    ],
    ids=str,
)
def test_box_is_in_px_of_the_picture(size, box, predictor):
    said = predictor.predict(spotted(size, box))
    assert len(said.boxes) == 1
    one = said.boxes[0]
    tolerance = 1.6 * max(size) / SIDE
    assert (one.x0, one.y0, one.x1, one.y1) == pytest.approx(box, abs=tolerance)
    assert 0 <= one.x0 < one.x1 <= size[0] + 1e-6
    assert 0 <= one.y0 < one.y1 <= size[1] + 1e-6
    assert one.is_counted


@pytest.mark.parametrize("size", [(600, 400), (4000, 3000)], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photograph_is_answered_upright(orientation, size, predictor):
    """Twelve megapixels are decoded at a fraction of their size, and boxes told in px of all."""
    stored = spotted(size, (size[0] // 8, size[1] // 4, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=92, exif=exif)
    said = predictor.predict(buffer.getvalue())
    upright = np.asarray(predictor.open(buffer.getvalue()))[..., 0] > 190
    scale = max(size) / max(upright.shape)
    rows, columns = (np.flatnonzero(upright.any(axis=axis)) for axis in (1, 0))
    expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    one = said.boxes[0]
    found = np.array([one.x0, one.y0, one.x1, one.y1])
    assert found == pytest.approx(scale * np.array(expected), abs=2 * max(size) / SIDE)


def test_bundle_is_held_to_its_rules(tmp_path):
    good = bundle_of(["a", "b"], {"a": 0.4})
    document = json.loads(good.to_json())
    path = tmp_path / "bundle.json"
    for changes, message in (
        ({"labels": []}, "labels: a detection needs at least 1"),
        ({"labels": ["b"]}, "box_points names no label: a"),
        (
            {"outputs": [{**document["outputs"][0], "shape": [-1, 6]}, document["outputs"][1]]},
            "outputs.boxes.shape",
        ),
    ):
        path.write_text(json.dumps(document | changes), encoding="utf-8")
        with pytest.raises(BundleError, match=message.replace(".", r"\.")):
            read_bundle(path, verify=False)


def test_an_answer_in_words_cells_and_json():
    bundle = bundle_of(["a", "b"], {"a": 0.4})
    boxes = np.float32([[0.1, 0.2, 0.5, 0.6, 0.45, 0], [0.5, 0.5, 1, 1, 0.45, 1], [0] * 6, [0] * 6])
    kind = ServedDetection()
    said = kind.decode({"boxes": boxes}, bundle, np.eye(3))
    lines = kind.lines(said, bundle)
    assert lines[0] == "found: a 1, b 0"
    assert "1 more boxes are less certain" in lines[-1]
    assert kind.columns(bundle) == ["n_a", "n_b", "boxes"]
    assert kind.cells(said, bundle) == ["1", "0", "a 0.450 6.4 12.8 32.0 38.4"]
    document = kind.document(said, bundle)
    assert document["counts"] == {"a": 1, "b": 0}
    assert document["boxes"][1]["is_counted"] is False


ROWS = np.float32(
    [[0.1, 0.1, 0.3, 0.3, 0.9, 0], [0.6, 0.6, 0.9, 0.9, 0.7, 1], [0.5, 0.5, 0.9, 0.9, 0.4, 0]]
)


def test_evidence_is_the_surest_box_of_the_label_and_one_like_it():
    bundle, kind = bundle_of(["cat", "dog"], {}, n=3), ServedDetection()
    asked = kind.evidence({"boxes": ROWS}, bundle, None)
    assert (asked.name, asked.said) == ("cat", "cat 0.900, the most certain box")
    assert asked.box == pytest.approx((6.4, 6.4, 19.2, 19.2))
    asked = kind.evidence({"boxes": ROWS}, bundle, "dog")
    half, other, padding = ROWS.copy(), ROWS.copy(), ROWS.copy()
    half[1, 2] = 0.75
    other[1, 5] = 0
    padding[1, 4] = 0
    scores = asked.score({"boxes": np.stack([ROWS, half, other, padding])})
    # Half of the box is left; of another label, or padding, nothing is like it.
    assert scores == pytest.approx([0.7, 0.35, 0, 0], abs=1e-6)


def test_nothing_is_explained_where_no_box_is():
    bundle = bundle_of(["cat", "dog"], {}, n=3)
    with pytest.raises(ValueError, match="shows no box of dog to explain"):
        ServedDetection().evidence({"boxes": ROWS[[0, 2, 2]]}, bundle, "dog")


def test_a_count_has_the_interval_that_val_gave_where_its_threshold_holds(tmp_path):
    old = bundle_of(["a", "b"], {"a": 0.4, "b": 0.4})
    # A bundle that was made without one is read, and writes none.
    assert "count_band" not in old.to_json()
    document = json.loads(old.to_json())
    document["box_points"]["a"]["count_band"] = [-2, 3]
    (tmp_path / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    bundle = read_bundle(tmp_path / "bundle.json", verify=False)
    boxes = np.float32([[0.1, 0.2, 0.5, 0.6, 0.45, 0], [0.5, 0.5, 1, 1, 0.3, 0], [0] * 6, [0] * 6])
    kind = ServedDetection()
    said = kind.decode({"boxes": boxes}, bundle, np.eye(3))
    assert count_intervals(said, bundle) == {"a": (0, 4)}
    assert kind.lines(said, bundle)[0] == "found: a 1 (95 %: 0 to 4), b 0"
    assert kind.document(said, bundle)["count_intervals"] == {"a": [0, 4]}
    moved = replace(said, boxes=tuple(replace(box, is_counted=True) for box in said.boxes))
    assert count_intervals(moved, bundle) == {}
    document["box_points"]["a"]["count_band"] = [3, -2]
    (tmp_path / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match="count_band: 3 is above -2"):
        read_bundle(tmp_path / "bundle.json", verify=False)

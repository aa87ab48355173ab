"""Boxes in px of the upright picture; tests/golden/detection.json is for every implementation."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipelines.errors import BundleError
from pipelines.serving.bundle import Artefact, Bundle, read_bundle
from pipelines.serving.detection import Boxes, ServedDetection
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


def spotting(side_px: int) -> bytes:
    """A model that gives the box around the bright pixels of its input, and nothing else."""
    graph, weights = [], []

    def constant(name: str, values: object, dtype: type) -> str:
        weights.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def node(operator: str, inputs: list[str], output: str, **attributes: object) -> str:
        graph.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    red = node("Cast", ["image"], "wide", to=TensorProto.FLOAT)
    red = node("Slice", [red, constant("s0", [0], np.int64), constant("s1", [1], np.int64),
                         constant("channels", [3], np.int64)], "red")  # fmt: skip
    bright = node("Clip", [node("Sub", [red, constant("t", 190, np.float32)], "above"),
                           constant("zero", 0, np.float32), constant("one", 1, np.float32)], "on")  # fmt: skip
    # Bright columns and rows as the sum over the other axis, then their first and last place.
    edges = []
    for name, axis in (("x", 1), ("y", 2)):
        sums = node("ReduceMean", [bright, constant(f"a{name}", [axis, 3], np.int64)], f"m{name}",
                    keepdims=0)  # fmt: skip
        lit = node("Clip", [node("Mul", [sums, constant(f"k{name}", 1e4, np.float32)], f"u{name}"),
                            "zero", "one"], f"l{name}")  # fmt: skip
        places = np.arange(side_px) / side_px
        for end, ramp in (("0", 1 - places), ("1", places + 1 / side_px)):
            product = node(
                "Mul", [lit, constant(f"r{name}{end}", ramp, np.float32)], f"p{name}{end}"
            )
            graph.append(
                helper.make_node(
                    "TopK",
                    [product, constant(f"n{name}{end}", [1], np.int64)],
                    [f"v{name}{end}", f"i{name}{end}"],
                    axis=1,
                )
            )
            value = f"v{name}{end}"
            if end == "0":
                value = node("Sub", ["one", value], f"w{name}")
            edges.append(value)
    x0, x1, y0, y1 = edges
    ones = node("Add", [node("Mul", [x0, "zero"], "nothing"), "one"], "score")
    row = node("Concat", [x0, y0, x1, y1, ones, "nothing"], "row", axis=1)
    node("Unsqueeze", [row, constant("first", [1], np.int64)], "boxes")
    node("ReduceMean", [red, constant("all", [1, 2], np.int64)], "embedding", keepdims=0)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", side_px, side_px, 3])
    outputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 1, 6]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 1]),
    ]
    proto = helper.make_model(
        helper.make_graph(graph, "spotting", [image], outputs, weights),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


@pytest.fixture(scope="module")
def predictor() -> Predictor[Boxes]:
    bundle = bundle_of(["spot"], {"spot": 0.5}, n=1)
    model = spotting(SIDE)
    embedding = bundle.outputs[1].model_copy(update={"shape": (-1, 1)})
    files = tuple(Artefact.of(f"{key}.onnx", key, model) for key in ("fp32", "int8"))
    bundle = bundle.model_copy(
        update={"outputs": (bundle.outputs[0], embedding), "artefacts": files}
    )
    return Predictor(bundle, model, "fp32")


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
        ),  # fmt: skip
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

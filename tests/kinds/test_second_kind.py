"""A second kind, added from outside: a number for a picture. Nothing else is changed.

It has no labels and no embedding, and its model gives one number: how bright the picture is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from pipelines.config.gate import Demand, GateParams
from pipelines.errors import BundleError, ConfigError
from pipelines.kinds import gate as kinds_gate
from pipelines.serving import kinds as serving_kinds
from pipelines.serving.answer import Answer, ServedKind
from pipelines.serving.bundle import Artefact, Bundle, read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.stages import gate

NAME = "brightness"
SIDE_PX = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Brightness(Answer):
    share: float


class ServedBrightness(ServedKind[Brightness]):
    outputs = ("level",)

    def check(self, bundle: Bundle) -> None:
        if bundle.labels:
            raise ValueError(f"labels: a {NAME} has none, got {len(bundle.labels)}")

    def decode(self, outputs: Mapping[str, np.ndarray], bundle: Bundle) -> Brightness:
        return Brightness(share=float(outputs["level"][0]) / 255)


@pytest.fixture(autouse=True)
def _added(monkeypatch):
    monkeypatch.setitem(serving_kinds.KINDS, NAME, ServedBrightness())
    monkeypatch.setitem(kinds_gate.KINDS, NAME, lambda bundle, params: [])


def mean_model() -> bytes:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "last"], ["level"]),
        ],
        NAME,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", SIDE_PX, SIDE_PX, 3])],
        [helper.make_tensor_value_info("level", TensorProto.FLOAT, ["n", 1])],
        [
            helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [1], [1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """bundle.json of a model of the second kind."""
    model = mean_model()
    golden = Path(__file__).parent.parent / "golden/bundle_schema_3.json"
    document = json.loads(golden.read_text(encoding="utf-8"))
    spec = {"dtype": "float32", "meaning": "mean of all pixels, in [0, 255]"}
    document |= {
        "kind": NAME,
        "labels": [],
        "label_meanings": {},
        "operating_points": {},
        "abstention": None,
        "preprocess": {"resize_px": SIDE_PX, "crop_px": SIDE_PX},
        "outputs": [{"name": "level", "shape": [-1, 1], **spec}],
        "artefacts": [],
        "metrics": {key: {"mean_error": 1.5} for key in ("fp32", "int8")},
        "intervals": None,
    }
    document["input"] |= {"name": "image", "shape": [-1, SIDE_PX, SIDE_PX, 3]}
    del document["label_names"]
    for precision in ("fp32", "int8"):
        artefact = Artefact.of(f"{precision}.onnx", precision, model)
        (tmp_path / artefact.name).write_bytes(model)
        document["artefacts"].append(artefact.model_dump())
    bundle = Bundle.model_validate(document)
    (tmp_path / "bundle.json").write_text(bundle.to_json(), encoding="utf-8")
    return tmp_path / "bundle.json"


def test_its_bundle_is_read_as_it_was_written(path):
    bundle = read_bundle(path)
    assert bundle.kind == NAME
    assert bundle.to_json() == path.read_text(encoding="utf-8")


def test_its_bundle_is_held_to_its_own_rules(path):
    document = json.loads(path.read_text(encoding="utf-8"))
    for changes, message in (
        ({"labels": ["dark", "light"]}, "labels: a brightness has none, got 2"),
        ({"kind": "classification"}, "outputs: a classification gives logits, embedding, got lev"),
        (
            {"abstention": json.loads(golden_text())["abstention"]},
            "abstention: needs an output embedding",
        ),
    ):
        path.write_text(json.dumps(document | changes), encoding="utf-8")
        with pytest.raises(BundleError) as caught:
            read_bundle(path)
        assert message in str(caught.value)


def golden_text() -> str:
    golden = Path(__file__).parent.parent / "golden/bundle_schema_3.json"
    return golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("level", [0, 51, 255])
def test_predictor_gives_its_answer(path, level):
    predictor: Predictor[Brightness] = Predictor.load(path)
    answer = predictor.predict(Image.new("RGB", (20, 30), (level, level, level)))
    assert isinstance(answer, Brightness)
    assert answer.share == pytest.approx(level / 255, abs=1e-6)
    assert not answer.is_ood
    assert answer.embedding.shape == (0,)
    assert answer.elapsed_ms > 0


def test_predictor_refuses_a_model_that_gives_something_else(path):
    bundle = read_bundle(path)
    wide = bundle.outputs[0].model_copy(update={"shape": (-1, 2, 2)})
    with pytest.raises(BundleError, match="output 'level': expected"):
        Predictor(bundle.model_copy(update={"outputs": (wide,)}), mean_model(), "int8")


# -- the gate -------------------------------------------------------------------------------------
METRICS = {"int8": {"mean_error": 1.5}, "fp32": {"mean_error": 1.0}, "agreement": 0.98}


def asked(*demands: dict) -> GateParams:
    """Bounds on the second kind; those of a classification are not looked at."""
    named = {"min_accuracy": 1, "min_macro_f1": 1, "min_agreement": 1}
    named |= {"max_accuracy_drop": 0, "max_recall_drop": 0, "max_int8_bytes": 10**6}
    return GateParams.model_validate({**named, "demands": demands})


@pytest.mark.parametrize(
    ("demand", "passes"),
    [
        ({"metric": "served.mean_error", "at_most": 1.5}, True),
        ({"metric": "served.mean_error", "at_most": 1.4}, False),
        ({"metric": "fp32.mean_error", "at_least": 1}, True),
        ({"metric": "agreement", "at_least": 0.99}, False),
    ],
)
def test_gate_holds_it_to_the_list(path, demand, passes):
    bundle = read_bundle(path)
    bundle = bundle.model_copy(update={"audit": None})
    first, size = gate.check(METRICS, bundle, asked(demand))
    assert first.passed is passes
    assert size.metric == "int8 bytes"


def test_gate_names_the_served_file(path):
    bundle = read_bundle(path).model_copy(update={"audit": None})
    names = [
        check.metric
        for check in gate.check(
            METRICS,
            bundle,
            asked({"metric": "served.mean_error", "at_most": 1}),
        )
    ]
    assert names[0] == "mean_error (int8)"


@pytest.mark.parametrize("metric", ["served.accuracy", "mean_error", "agreement.low", "int8"])
def test_gate_refuses_a_demand_on_what_is_no_figure(path, metric):
    with pytest.raises(ConfigError, match=r"gate\.demands: metric"):
        gate.check(METRICS, read_bundle(path), asked({"metric": metric, "at_least": 0}))


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1, "at_most": 2}, {"at_least": float("nan")}])
def test_demand_has_one_bound(bounds):
    with pytest.raises(ValueError, match="at_least"):
        Demand(metric="agreement", **bounds)

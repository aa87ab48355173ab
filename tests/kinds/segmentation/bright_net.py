"""A bundle of masks that needs no training: what is red is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pipelines.card import DatasetCard
from pipelines.paths import TaskPaths
from pipelines.serving.bundle import Artefact, Bundle

SIDE_PX = 32
_GOLDEN = Path(__file__).resolve().parents[2] / "golden/bundle_schema_3.json"


def bright_net() -> bytes:
    """uint8 (n, side, side, 3) to mask (n, 1, side, side), high where red is; embedding (n, 3)."""
    constants = [
        numpy_helper.from_array(np.float32([[[[20 / 255]], [[0]], [[0]]]]), "red"),
        numpy_helper.from_array(np.float32([-10]), "bias"),
        numpy_helper.from_array(np.float32(255), "full"),
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "red", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["mask"]),
        helper.make_node("Div", ["values", "full"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["embedding"], axes=[1, 2], keepdims=0),
    ]
    square = [SIDE_PX, SIDE_PX]
    given = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", *square, 3])
    outputs = [
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1, *square]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
    ]
    graph = helper.make_graph(nodes, "bright", [given], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def write_bundle(files: TaskPaths, card: DatasetCard, **changes: object) -> Bundle:
    """The two files and bundle.json of a task of one label."""
    files.mobile_dir.mkdir(parents=True)
    models = {"fp32": files.onnx_fp32, "int8": files.onnx_int8}
    for path in models.values():
        path.write_bytes(bright_net())
    document = json.loads(_GOLDEN.read_text(encoding="utf-8"))
    shape = {"dtype": "float32", "meaning": "numbers"}
    metrics = {"dice": 0.8, "iou": 0.7, "boundary_f1": 0.6}
    document |= {
        **{"kind": "segmentation", "task": card.task, "domain": card.domain, "title": card.title},
        **{"labels": card.labels, "label_names": {}, "operating_points": {}, "abstention": None},
        "label_meanings": {entry.label: entry.meaning for entry in card.classes},
        "preprocess": {"resize_px": SIDE_PX, "crop_px": SIDE_PX},
        "input": {**document["input"], "name": "image", "shape": [-1, SIDE_PX, SIDE_PX, 3]},
        "outputs": [
            {"name": "mask", "shape": [-1, 1, SIDE_PX, SIDE_PX], **shape},
            {"name": "embedding", "shape": [-1, 3], **shape},
        ],
        "artefacts": [
            Artefact.of(path.name, precision, path.read_bytes())
            for precision, path in models.items()
        ],
        "metrics": {"fp32": metrics, "int8": metrics},
        "intervals": {
            key: {"dice": {"value": 0.8, "low": 0.7, "high": 0.9}} for key in ("fp32", "int8")
        },
        "intended_use": card.intended_use,
        "not_for": card.not_for,
    }
    document["audit"] = {**document["audit"], "task": card.task, "metric": "dice"}
    bundle = Bundle.model_validate(document | changes)
    files.bundle.write_text(bundle.to_json(), encoding="utf-8")
    return bundle

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipelines.export.byte_weights import with_byte_weights
from pipelines.export.graphs import logits_of, with_inner_features
from pipelines.export.quantize import rounded, static_int8
from pipelines.serving.vetting import vet
from tests.tiny_network import pictures


def layers(*, trans_b: int = 1, channels: int = 64) -> bytes:
    """A convolution and a linear layer, whose channels differ in size a thousandfold."""
    draw = np.random.default_rng(5)
    sizes = np.geomspace(0.01, 10, channels)
    kernel = draw.normal(size=(channels, 3, 3, 3)) * sizes[:, None, None, None]
    kernel[3] = 0
    linear = draw.normal(size=(8, channels)) * np.geomspace(0.01, 10, 8)[:, None]
    tensors = {
        "kernel": kernel,
        "bias": draw.normal(size=channels),
        "linear": linear if trans_b else linear.T,
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["map"], "conv"),
        helper.make_node("Flatten", ["map"], ["flat"]),
        helper.make_node("Gemm", ["flat", "linear"], ["y"], "gemm", transB=trans_b),
    ]
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 8])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def stored(model: bytes) -> dict[str, np.ndarray]:
    """Weights by name as the file means them."""
    graph = onnx.load_from_string(model).graph
    tensors = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    products = [n for n in graph.node if n.name.endswith("_unpacked")]
    return {
        n.output[0]: tensors[n.input[0].replace("_cast", "_steps")].astype(np.float32)
        * tensors[n.input[1]]
        for n in products
    }


@pytest.mark.parametrize("trans_b", [1, 0])
def test_each_channel_has_a_step_of_its_own(trans_b):
    model = layers(trans_b=trans_b)
    weights = {
        t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer
    }
    kept = stored(with_byte_weights(model))
    assert set(kept) == {"kernel", "linear"}
    for name, axis in (("kernel", 0), ("linear", 0 if trans_b else 1)):
        error = np.moveaxis(np.abs(kept[name] - weights[name]), axis, 0).reshape(-1, 1)
        largest = np.moveaxis(np.abs(weights[name]), axis, 0)
        error = error.reshape(len(largest), -1).max(axis=1)
        largest = largest.reshape(len(largest), -1).max(axis=1)
        # Half a step; a channel of zeros stays one.
        assert (error <= 0.501 * largest / 127).all()
        assert (error > 0).sum() >= len(error) - 1


def test_only_named_nodes_and_no_small_tensor():
    assert set(stored(with_byte_weights(layers(), {"gemm"}))) == {"linear"}
    small = layers(channels=8)
    assert set(stored(with_byte_weights(small))) == {"kernel"}


def test_file_is_less_than_a_third_and_vetted():
    model = layers(channels=2048)
    packed = with_byte_weights(model)
    assert len(packed) < len(model) / 3
    assert set(vet(packed).operators) == {"Cast", "Mul", "Conv", "Flatten", "Gemm"}


def test_weights_on_the_grid_keep_their_answers(tiny_onnx, batches):
    model = rounded(tiny_onnx, batches)
    pixels = pictures(8, 4)
    packed = with_byte_weights(with_inner_features(model))
    assert sum("_steps" in t.name for t in onnx.load_from_string(packed).graph.initializer) > 3
    # The head stands on no grid.
    assert logits_of(packed, pixels) == pytest.approx(logits_of(model, pixels), abs=0.05)
    on_grid = {n.name for n in onnx.load_from_string(model).graph.node if n.op_type == "Conv"}
    only = with_byte_weights(model, on_grid)
    assert logits_of(only, pixels) == pytest.approx(logits_of(model, pixels), abs=1e-4)


def test_what_is_int8_already_stays(tiny_onnx, batches, tmp_path):
    model = static_int8(tiny_onnx, batches, tmp_path)
    convolutions = {n.name for n in onnx.load_from_string(model).graph.node if n.op_type == "Conv"}
    assert stored(with_byte_weights(model, convolutions)) == {}


def test_runtime_unpacks_once(tiny_onnx, tmp_path):
    """What runs are the operators of the float file: nothing is unpacked for each picture."""

    def running(model: bytes) -> Counter[str]:
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(tmp_path / "optimised.onnx").graph
        return Counter(node.op_type for node in graph.node)

    packed = with_byte_weights(tiny_onnx)
    assert len(onnx.load_from_string(packed).graph.node) > len(
        onnx.load_from_string(tiny_onnx).graph.node
    )
    assert running(packed) == running(tiny_onnx)

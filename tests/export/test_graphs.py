"""Graphs: names are shortened without a change of the function, blocks are found in order."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipelines.export.graphs import (
    WeightGraph,
    add_to_logits,
    blocks_of,
    convolutions_of,
    logits_of,
    n_groups_of,
    session_with,
    with_short_names,
)
from pipelines.export.onnx_export import INPUT_NAME


@pytest.fixture
def model() -> bytes:
    """uint8 pictures -> mean colour -> two dense layers named as an exporter names blocks."""
    weights = {
        "module.blocks.0.weight": np.eye(3, dtype=np.float32),
        "module.blocks.0.bias": np.zeros(3, dtype=np.float32),
        "module.blocks.1.weight": np.array([[1, 0, 0], [0, 1, 0]], dtype=np.float32),
        "module.blocks.1.bias": np.zeros(2, dtype=np.float32),
        "axes": np.array([1, 2], dtype=np.int64),
    }
    nodes = [
        helper.make_node(
            "Cast", ["image"], ["a_long_name_of_a_cast"], "cast", to=TensorProto.FLOAT
        ),
        helper.make_node(
            "ReduceMean", ["a_long_name_of_a_cast", "axes"], ["mean"], "mean", keepdims=0
        ),
        helper.make_node(
            "Gemm",
            ["mean", "module.blocks.0.weight", "module.blocks.0.bias"],
            ["embedding"],
            "one",
            transB=1,
        ),
        helper.make_node(
            "Gemm",
            ["embedding", "module.blocks.1.weight", "module.blocks.1.bias"],
            ["logits"],
            "two",
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 4, 4, 3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString()
    return data


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (5, 4, 4, 3), dtype=np.uint8)


def test_short_names_keep_the_function_and_the_names_outside(model, pixels):
    short = with_short_names(model)
    assert len(short) < len(model)
    assert b"a_long_name" not in short
    graph = onnx.load_from_string(short).graph
    assert [value.name for value in graph.input] == ["image"]
    assert [value.name for value in graph.output] == ["logits", "embedding"]
    np.testing.assert_array_equal(logits_of(short, pixels), logits_of(model, pixels))


def test_blocks_come_in_order_with_what_stands_before_the_first(model):
    assert blocks_of(model) == [("cast", "mean", "one"), ("two",)]


def test_convolutions_are_named_and_nothing_else(tiny_onnx):
    nodes = onnx.load_from_string(tiny_onnx).graph.node
    found = convolutions_of(tiny_onnx)
    assert found == {node.name for node in nodes if node.op_type == "Conv"}
    assert 0 < len(found) < len(nodes)


def test_add_to_logits_shifts_each_logit(model, pixels):
    shifted = add_to_logits(model, np.array([1.5, -2.0], dtype=np.float32))
    difference = logits_of(shifted, pixels) - logits_of(model, pixels)
    np.testing.assert_allclose(difference, np.tile([1.5, -2.0], (5, 1)), atol=1e-4)


# -- WeightGraph ----------------------------------------------------------------------------------
def test_weight_graph_finds_nodes_by_what_they_make_and_read(tiny_onnx):
    graph = WeightGraph(tiny_onnx)
    for node in graph.nodes:
        assert all(graph.writer[name] is node for name in node.output)
        assert all(node in graph.readers[name] for name in node.input)
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    assert len(convolutions) == 10
    for node in convolutions:
        kernel = graph.weights[node.input[1]]
        assert graph.is_pointwise(node) == (kernel.shape[2:] == (1, 1))
        assert n_groups_of(node) in (1, kernel.shape[0])
        assert graph.has_bias(node)


def test_changed_weight_is_the_only_change(tiny_onnx, make_pictures):
    graph = WeightGraph(tiny_onnx)
    assert np.array_equal(
        logits_of(graph.to_bytes(), make_pictures(4, 1)), logits_of(tiny_onnx, make_pictures(4, 1))
    )
    name = next(node for node in graph.nodes if node.op_type == "Conv").input[1]
    graph.weights[name] = graph.weights[name] * 2
    after = WeightGraph(graph.to_bytes()).weights
    for other, values in WeightGraph(tiny_onnx).weights.items():
        factor = 2 if other == name else 1
        assert np.array_equal(after[other], values * factor)


def test_session_also_gives_inner_tensors(tiny_onnx, make_pictures):
    graph = WeightGraph(tiny_onnx)
    inner = next(node for node in graph.nodes if node.op_type == "Clip").output[0]
    session = session_with(tiny_onnx, [inner, inner])
    (values,) = session.run([inner], {INPUT_NAME: make_pictures(2, 1)})
    assert values.shape[:2] == (2, 8)
    assert values.min() >= 0
    assert values.max() <= 6

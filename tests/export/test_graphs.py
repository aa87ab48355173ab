"""Graphs: names are shortened without a change of the function, blocks are found in order."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.export.graphs import (
    WeightGraph,
    add_to_logits,
    blocks_of,
    constant_nodes,
    convolutions_of,
    logits_of,
    n_groups_of,
    session_with,
    with_inner_features,
    with_short_names,
)
from pipelines.export.onnx_export import INPUT_NAME, classifier_onnx
from pipelines.export.quantize import static_int8
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.sessions import make_session
from tests.tiny_network import pictures


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
    long = "a_long_name_of_a_cast"
    names = [name for name in weights if name != "axes"]
    make = helper.make_node
    nodes = [
        make("Cast", ["image"], [long], "cast", to=TensorProto.FLOAT),
        make("ReduceMean", [long, "axes"], ["mean"], "mean", keepdims=0),
        make("Gemm", ["mean", *names[:2]], ["embedding"], "one", transB=1),
        make("Gemm", ["embedding", *names[2:]], ["logits"], "two", transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "tiny",
        [value("image", TensorProto.UINT8, ["n", 4, 4, 3])],
        [
            value("logits", TensorProto.FLOAT, ["n", 2]),
            value("embedding", TensorProto.FLOAT, ["n", 3]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
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


def test_changed_weight_is_the_only_change(tiny_onnx):
    graph = WeightGraph(tiny_onnx)
    assert np.array_equal(
        logits_of(graph.to_bytes(), pictures(4, 1)), logits_of(tiny_onnx, pictures(4, 1))
    )
    name = next(node for node in graph.nodes if node.op_type == "Conv").input[1]
    graph.weights[name] = graph.weights[name] * 2
    after = WeightGraph(graph.to_bytes()).weights
    for other, values in WeightGraph(tiny_onnx).weights.items():
        factor = 2 if other == name else 1
        assert np.array_equal(after[other], values * factor)


def test_session_also_gives_inner_tensors(tiny_onnx):
    graph = WeightGraph(tiny_onnx)
    inner = next(node for node in graph.nodes if node.op_type == "Clip").output[0]
    session = session_with(tiny_onnx, [inner, inner])
    (values,) = session.run([inner], {INPUT_NAME: pictures(2, 1)})
    assert values.shape[:2] == (2, 8)
    assert values.min() >= 0
    assert values.max() <= 6


# -- inner features -------------------------------------------------------------------------------
def answers(model: bytes, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return make_session(model).run([LOGITS_NAME, EMBEDDING_NAME], {INPUT_NAME: pixels})


def test_embedding_gets_the_means_that_the_last_depthwise_convolution_reads(tiny_onnx):
    pixels = pictures(6, 3)
    model = with_inner_features(tiny_onnx)
    logits, embedding = answers(model, pixels)
    head_logits, head = answers(tiny_onnx, pixels)
    nodes = onnx.load_from_string(tiny_onnx).graph.node
    name = [node for node in nodes if n_groups_of(node) > 1][-1].input[0]
    inner = session_with(tiny_onnx, [name]).run([name], {INPUT_NAME: pixels})[0].mean(axis=(2, 3))
    assert inner.shape[1] > 1
    assert inner.std() > 1e-3
    np.testing.assert_array_equal(logits, head_logits)
    np.testing.assert_allclose(embedding, np.hstack([head, inner]), rtol=1e-5, atol=1e-6)
    # What `export` reads the width from.
    assert make_session(model).get_outputs()[1].shape[1:] == [embedding.shape[1]]


def test_a_quantised_file_has_them_too(tiny_onnx, batches, tmp_path):
    int8 = static_int8(tiny_onnx, batches[:1], tmp_path)
    pixels = pictures(6, 3)
    expected = answers(with_inner_features(tiny_onnx), pixels)
    logits, embedding = answers(with_inner_features(int8), pixels)
    assert embedding.shape == expected[1].shape
    assert sqnr_db(expected[1], embedding) > 15
    np.testing.assert_array_equal(logits, answers(int8, pixels)[0])


@pytest.mark.parametrize(
    ("n_groups", "kernel"),
    [(1, 3), (4, 3), (8, 3), (1, 1)],
    ids=["dense", "grouped", "depthwise", "1x1 alone"],
)
def test_level_is_read_by_the_last_convolution_with_a_kernel(n_groups, kernel, tmp_path):
    torch.manual_seed(4)
    blocks = [
        nn.Sequential(nn.Conv2d(3, 8, kernel, 2), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 16, kernel, groups=n_groups), nn.ReLU()),
    ]
    if kernel > 1:
        blocks.append(nn.Sequential(nn.Conv2d(16, 24, 1), nn.ReLU()))
    n_head = blocks[-1][0].out_channels
    net = Classifier(blocks, make_head(n_head, 3, (), 0.0), 1).eval()
    plain = classifier_onnx(net, 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels = pictures(16, 1)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = net.blocks[0](values).mean(dim=(2, 3)).numpy()
    for model in (plain, static_int8(plain, [pixels], tmp_path)):
        both = with_inner_features(model)
        _, embedding = answers(both, pixels)
        stated = onnx.load_from_string(both).graph.output[1].type.tensor_type.shape.dim[1].dim_value
        assert stated == embedding.shape[1] == n_head + 8
        assert sqnr_db(expected, embedding[:, n_head:]) > 20


def test_a_network_without_convolutions_has_no_such_level(model):
    with pytest.raises(ValueError, match="no convolution"):
        with_inner_features(model)


def test_constant_nodes_are_those_that_no_input_can_change():
    text = """
        <ir_version: 10, opset_import: ["": 20]>
        graph (float[n, 2] x) => (float[n, 2] y)
        <float[2] w = {2, 4}> {
            logs = Log(w)
            twice = Add(logs, w)
            seen = Mul(x, w)
            y = Sub(seen, twice)
        }"""
    graph = onnx.parser.parse_model(text).graph
    for node in graph.node:
        node.name = node.output[0]
    assert constant_nodes(graph) == ["logs", "twice"]


def test_inner_features_are_the_backbones_and_not_those_of_a_head_on_maps():
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)

        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return self.depthwise(maps).mean(dim=(2, 3))

    blocks = [
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1)),
    ]
    network = Classifier(blocks, Head(), 1, taps=[1]).eval()
    plain = classifier_onnx(network, 32, (0.0,) * 3, (1.0,) * 3)
    embedding = make_session(with_inner_features(plain)).run(
        [EMBEDDING_NAME], {INPUT_NAME: pictures(2, 32)}
    )[0]
    assert embedding.shape == (2, 8 + 4)

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.export.exact_sums import exact
from pipelines.export.graphs import n_groups_of, session_with, with_inner_features
from pipelines.export.onnx_export import classifier_onnx
from pipelines.export.quantize import StaticQuantizer
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.sessions import make_session
from pipelines.serving.vetting import vet

NAMES = [LOGITS_NAME, EMBEDDING_NAME]


def answers(model: bytes, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    return make_session(model).run(NAMES, {"image": pixels})


def read_by_last_depthwise(model: bytes) -> str:
    graph = onnx.load_from_string(model).graph
    return [node for node in graph.node if n_groups_of(node) > 1][-1].input[0]


@pytest.fixture
def int8(tiny_onnx, make_pictures, tmp_path) -> bytes:
    return StaticQuantizer(tiny_onnx, [make_pictures(16, 1)], tmp_path).int8()


def test_embedding_gets_the_means_that_the_last_depthwise_convolution_reads(
    tiny_onnx, make_pictures
):
    pixels = make_pictures(6, 3)
    model = with_inner_features(tiny_onnx)
    logits, embedding = answers(model, pixels)
    head_logits, head = answers(tiny_onnx, pixels)
    name = read_by_last_depthwise(tiny_onnx)
    inner = session_with(tiny_onnx, [name]).run([name], {"image": pixels})[0].mean(axis=(2, 3))
    assert inner.shape[1] > 1
    assert inner.std() > 1e-3
    np.testing.assert_array_equal(logits, head_logits)
    np.testing.assert_allclose(embedding, np.hstack([head, inner]), rtol=1e-5, atol=1e-6)
    # What `export` reads the width from.
    assert make_session(model).get_outputs()[1].shape[1:] == [embedding.shape[1]]


def test_a_quantised_file_has_them_too(tiny_onnx, int8, make_pictures):
    pixels = make_pictures(6, 3)
    expected = answers(with_inner_features(tiny_onnx), pixels)
    logits, embedding = answers(with_inner_features(int8), pixels)
    assert embedding.shape == expected[1].shape
    assert sqnr_db(expected[1], embedding) > 15
    np.testing.assert_array_equal(logits, answers(int8, pixels)[0])


def test_the_sums_of_a_quantised_level_do_not_depend_on_their_order(int8, make_pictures):
    model = onnx.load_from_string(exact(with_inner_features(int8)))
    writers = {name: node for node in model.graph.node for name in node.output}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    means = [node for node in model.graph.node if node.op_type == "ReduceMean"]
    assert len(means) == 2
    for node in means:
        mantissa, _ = np.frexp(float(constants[writers[node.input[0]].input[1]]))
        # Eight bits: with a byte and the positions of a picture below a float's 24.
        assert (mantissa * 2**8).is_integer()


def test_the_file_is_one_that_may_be_loaded(int8):
    vet(exact(with_inner_features(int8)))


@pytest.mark.parametrize(
    ("n_groups", "kernel", "n_read"),
    [(1, 3, 8), (4, 3, 8), (8, 3, 8), (1, 1, 8)],
    ids=["dense", "grouped", "depthwise", "1x1 alone"],
)
def test_level_is_read_by_the_last_convolution_with_a_kernel(
    n_groups, kernel, n_read, make_pictures, tmp_path
):
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
    pixels = make_pictures(16, 1)
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = net.blocks[0](values).mean(dim=(2, 3)).numpy()
    for model in (plain, StaticQuantizer(plain, [pixels], tmp_path).int8()):
        both = with_inner_features(model)
        _, embedding = answers(both, pixels)
        stated = onnx.load_from_string(both).graph.output[1].type.tensor_type.shape.dim[1].dim_value
        assert stated == embedding.shape[1] == n_head + n_read
        assert sqnr_db(expected, embedding[:, n_head:]) > 20


def test_a_network_without_convolutions_has_no_such_level():
    node = onnx.helper.make_node("Identity", ["image"], [EMBEDDING_NAME])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "none",
        [value("image", onnx.TensorProto.FLOAT, ["n", 3])],
        [value(EMBEDDING_NAME, onnx.TensorProto.FLOAT, ["n", 3])],
    )
    with pytest.raises(ValueError, match="no convolution"):
        with_inner_features(onnx.helper.make_model(graph).SerializeToString())

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest

from pipelines.export.graphs import logits_of
from pipelines.export.quantize import CALIBRATORS, StaticQuantizer, quantized_trunk
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.sessions import make_session


@pytest.fixture
def batches(make_pictures) -> list[np.ndarray]:
    return [make_pictures(16, seed) for seed in (1, 2, 3)]


def quantised_convolutions(model: bytes) -> dict[str, bool]:
    """By name of a convolution: whether its weights are int8."""
    graph = onnx.load_from_string(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    writer = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        if node.op_type == "Conv":
            source = writer.get(node.input[1])
            is_int8 = source is not None and source.op_type == "DequantizeLinear"
            assert is_int8 == (types.get(node.input[1]) != onnx.TensorProto.FLOAT)
            if is_int8:
                assert types[source.input[0]] == onnx.TensorProto.INT8
            found[node.name] = is_int8
    return found


def test_int8_has_the_same_inputs_and_outputs_and_int8_weights(tiny_onnx, batches, tmp_path):
    int8 = StaticQuantizer(tiny_onnx, batches, tmp_path).int8()
    before, after = make_session(tiny_onnx), make_session(int8)
    for one, other in (
        (before.get_inputs(), after.get_inputs()),
        (before.get_outputs(), after.get_outputs()),
    ):
        assert [(x.name, x.type) for x in one] == [(x.name, x.type) for x in other]
    assert all(quantised_convolutions(int8).values())
    assert sqnr_db(logits_of(tiny_onnx, batches[0]), logits_of(int8, batches[0])) > 10


def test_weights_have_a_scale_a_channel(tiny_onnx, batches, tmp_path):
    int8 = onnx.load_from_string(StaticQuantizer(tiny_onnx, batches, tmp_path).int8())
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in int8.graph.initializer}
    scales = [
        sizes[node.input[1]]
        for node in int8.graph.node
        if node.op_type == "DequantizeLinear" and "blocks." in node.input[0]
    ]
    assert max(scales) == 36  # channels of the widest convolution: 12 expanded by 3


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_same_pictures_give_the_same_bytes(calibrator, tiny_onnx, batches, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = StaticQuantizer(tiny_onnx, batches, tmp_path / "a").int8(calibrator)
    other = StaticQuantizer(tiny_onnx, batches, tmp_path / "b")
    other.int8("minmax")
    assert other.int8(calibrator) == first


def test_percentile_narrows_the_ranges(tiny_onnx, batches, tmp_path):
    quantizer = StaticQuantizer(tiny_onnx, batches, tmp_path)
    assert quantizer.int8("percentile") != quantizer.int8("minmax")


def test_calibration_pictures_matter(tiny_onnx, batches, tmp_path):
    dark = [np.zeros_like(batch) for batch in batches]
    (tmp_path / "dark").mkdir()
    assert (
        StaticQuantizer(tiny_onnx, dark, tmp_path / "dark").int8()
        != StaticQuantizer(tiny_onnx, batches, tmp_path).int8()
    )


def test_float_nodes_stay_float(tiny_onnx, batches, tmp_path):
    quantizer = StaticQuantizer(tiny_onnx, batches, tmp_path)
    names = list(quantised_convolutions(tiny_onnx))
    kept = (names[1], names[-1])
    found = quantised_convolutions(quantizer.int8(float_nodes=kept))
    assert {name for name, is_int8 in found.items() if not is_int8} == set(kept)
    # What was found out with them does not stick.
    assert all(quantised_convolutions(quantizer.int8()).values())


def test_quantiser_is_silent_and_leaves_the_logging_alone(
    tiny_onnx, batches, tmp_path, capsys, caplog
):
    level = logging.getLogger().level
    StaticQuantizer(tiny_onnx, batches, tmp_path).int8("percentile")
    assert capsys.readouterr().out == ""
    assert not caplog.records
    assert logging.getLogger().level == level


def test_quantised_trunk_answers_like_the_trunk(tiny_net, batches, monkeypatch):
    # The tiny trunk has two blocks; one of them must be left to quantise.
    monkeypatch.setattr("pipelines.export.quantize._FLOAT_BLOCKS", 1)
    from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
    from pipelines.export.onnx_export import ACTIVATIONS_NAME, INPUT_NAME, trunk_onnx

    trunk = trunk_onnx(tiny_net, 32, IMAGENET_MEAN, IMAGENET_STD)
    int8 = quantized_trunk(trunk, batches)
    quantised = list(quantised_convolutions(int8).values())
    assert any(quantised)
    assert not quantised[0], "the first block should have stayed in float"
    run = {
        name: make_session(model).run([ACTIVATIONS_NAME], {INPUT_NAME: batches[0]})[0]
        for name, model in (("fp32", trunk), ("int8", int8))
    }
    # The trunk's output itself must be what the tail expects: not rescaled by the equalisation.
    assert sqnr_db(run["fp32"].reshape(16, -1), run["int8"].reshape(16, -1)) > 15

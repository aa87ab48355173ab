from __future__ import annotations

import itertools
import logging

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
from pipelines.export import quantize
from pipelines.export.graphs import WeightGraph, logits_of
from pipelines.export.onnx_export import (
    ACTIVATIONS_NAME,
    INPUT_NAME,
    classifier_onnx,
    trunk_onnx,
)
from pipelines.export.quantize import (
    CALIBRATORS,
    equalized,
    quantized_trunk,
    round_weights,
    rounded,
    static_int8,
    stem_nodes,
)
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.sessions import make_session
from tests.tiny_network import pictures


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
    int8 = static_int8(tiny_onnx, batches, tmp_path)
    before, after = make_session(tiny_onnx), make_session(int8)
    for one, other in (
        (before.get_inputs(), after.get_inputs()),
        (before.get_outputs(), after.get_outputs()),
    ):
        assert [(x.name, x.type) for x in one] == [(x.name, x.type) for x in other]
    assert all(quantised_convolutions(int8).values())
    assert sqnr_db(logits_of(tiny_onnx, batches[0]), logits_of(int8, batches[0])) > 10


def test_weights_have_a_scale_a_channel(tiny_onnx, batches, tmp_path):
    int8 = onnx.load_from_string(static_int8(tiny_onnx, batches, tmp_path))
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in int8.graph.initializer}
    scales = [
        sizes[node.input[1]]
        for node in int8.graph.node
        if node.op_type == "DequantizeLinear" and "blocks." in node.input[0]
    ]
    assert max(scales) == 36  # channels of the widest convolution: 12 expanded by 3


@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_same_pictures_give_the_same_bytes(calibrator, tiny_onnx, batches, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    first = static_int8(tiny_onnx, batches, tmp_path / "a", calibrator)
    static_int8(tiny_onnx, batches, tmp_path / "b", "minmax")
    assert static_int8(tiny_onnx, batches, tmp_path / "b", calibrator) == first


def test_ranges_are_those_of_the_pictures_and_of_the_calibrator(tiny_onnx, batches, tmp_path):
    plain = static_int8(tiny_onnx, batches, tmp_path)
    assert static_int8(tiny_onnx, batches, tmp_path, "percentile") != plain
    (tmp_path / "dark").mkdir()
    dark = [np.zeros_like(batch) for batch in batches]
    assert static_int8(tiny_onnx, dark, tmp_path / "dark") != plain


def test_float_nodes_stay_float(tiny_onnx, batches, tmp_path):
    names = list(quantised_convolutions(tiny_onnx))
    kept = (names[1], names[-1])
    int8 = static_int8(tiny_onnx, batches, tmp_path, float_nodes=kept)
    found = quantised_convolutions(int8)
    assert {name for name, is_int8 in found.items() if not is_int8} == set(kept)
    # What was found out with them does not stick.
    assert all(quantised_convolutions(static_int8(tiny_onnx, batches, tmp_path)).values())


def test_quantiser_is_silent_and_leaves_the_logging_alone(
    tiny_onnx, batches, tmp_path, capsys, caplog
):
    level = logging.getLogger().level
    static_int8(tiny_onnx, batches, tmp_path, "percentile")
    assert capsys.readouterr().out == ""
    assert not caplog.records
    assert logging.getLogger().level == level


def test_quantised_trunk_answers_like_the_trunk(tiny_net, batches, monkeypatch):
    # The tiny trunk has two blocks; one of them must be left to quantise.
    monkeypatch.setattr("pipelines.export.quantize.FLOAT_BLOCKS", 1)
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


# -- cross-layer equalisation ---------------------------------------------------------------------
def gap(one: bytes, other: bytes, pixels: np.ndarray) -> float:
    """Largest difference of both outputs, relative to their size."""
    first = make_session(one).run(None, {INPUT_NAME: pixels})
    second = make_session(other).run(None, {INPUT_NAME: pixels})
    return max(
        float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("which", ["tiny_onnx", "doctored_onnx"])
def test_function_is_unchanged_and_weights_are_not(which, batches, request):
    model = request.getfixturevalue(which)
    got = equalized(model, batches)
    assert gap(model, got, np.concatenate(batches)) <= 1e-3
    # Only a ReLU6 that clips later may differ; the headroom keeps that small.
    assert gap(model, got, pictures(64, 9)) <= 0.02
    assert gap(model, equalized(got, batches), np.concatenate(batches)) <= 1e-3
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(m).graph.initializer}
        for m in (model, got)
    )
    assert list(before) == list(after)
    assert sum(not np.array_equal(before[name], after[name]) for name in before) >= 8
    assert all(after[name].dtype == before[name].dtype for name in before)


def test_nearly_constant_channel_no_longer_ruins_int8(doctored_onnx, batches, tmp_path):
    pixels = np.concatenate(batches)
    reference = logits_of(doctored_onnx, pixels)
    plain, better = (
        sqnr_db(reference, logits_of(static_int8(model, batches, tmp_path), pixels))
        for model in (doctored_onnx, equalized(doctored_onnx, batches))
    )
    # The model was doctored well enough to hurt, and is helped by at least 3 dB.
    assert plain < 20
    assert better >= plain + 3


def test_network_with_nothing_to_equalise_stays_as_it_is(tiny_onnx, batches):
    proto = onnx.load_from_string(tiny_onnx)
    for node in proto.graph.node:
        # The exporter leaves out biases of zeros, as networks from scratch have them.
        if node.op_type == "Conv":
            del node.input[2]
    model = proto.SerializeToString()
    assert gap(model, equalized(model, batches), pictures(8, 9)) == 0


@pytest.mark.parametrize(
    ("n_groups", "n_out"),
    [(4, 16), (4, 8), (2, 12), (8, 8), (8, 16)],
    ids=["grouped", "grouped to fewer", "two groups", "depthwise", "depthwise, two each"],
)
def test_grouped_convolutions_are_equalised_within_their_groups(n_groups, n_out, batches):
    torch.manual_seed(4)
    blocks = [
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, n_out, 3, 1, 1, groups=n_groups), nn.ReLU()),
        nn.Sequential(nn.Conv2d(n_out, 8, 1), nn.ReLU()),
    ]
    net = Classifier(blocks, make_head(8, 3, (), 0.0), 1)
    with torch.no_grad():
        for layer, _ in blocks:
            # Of very different sizes.
            nn.init.kaiming_normal_(layer.weight)
            layer.weight *= torch.logspace(-1, 0.7, len(layer.weight))[:, None, None, None]
            layer.bias.uniform_(0, 0.5)
        net.head[-1].weight.normal_()
    model = classifier_onnx(net.eval(), 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    better = equalized(model, batches)
    assert better != model
    assert gap(model, better, np.concatenate(batches)) <= 1e-4


# -- rounding -------------------------------------------------------------------------------------
def covariance_of(n_groups: int, n_inputs: int, seed: int) -> np.ndarray:
    """Of inputs that go up and down together, as those of neighbouring pixels do."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(n_groups, 200, 1)) + 0.2 * draw.normal(
        size=(n_groups, 200, n_inputs)
    )
    return vectors.swapaxes(1, 2) @ vectors / 200


def error(new: np.ndarray, old: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Variance of the output's error, (n_groups, n_outputs)."""
    change = new - old
    return np.einsum("gij,gjk,gik->gi", change, covariance, change)


def nearest(weights: np.ndarray) -> np.ndarray:
    scale = np.abs(weights).max(axis=2, keepdims=True) / 127
    return np.round(weights / scale) * scale


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 12), st.integers(0, 10_000), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_result_is_on_the_grid_and_keeps_its_scale(groups, outputs, inputs, seed, spread):
    draw = np.random.default_rng(seed)
    weights = draw.normal(size=(groups, outputs, inputs))
    if spread:
        weights *= 10.0 ** draw.integers(-3, 3, size=weights.shape)
    new = round_weights(weights, covariance_of(groups, inputs, seed))
    largest = np.abs(weights).max(axis=2)
    assert np.abs(new).max(axis=2) == pytest.approx(largest)
    steps = new / largest[:, :, None] * 127
    assert np.abs(steps - np.round(steps)).max() < 1e-6
    assert np.abs(steps).max() < 127.5


@pytest.mark.parametrize("seed", range(5))
def test_correlated_inputs_gain_a_lot_over_the_nearest_step(seed):
    weights = np.random.default_rng(seed).normal(size=(8, 4, 9))
    covariance = covariance_of(8, 9, seed)
    ours = error(round_weights(weights, covariance), weights, covariance).mean()
    assert ours < 0.5 * error(nearest(weights), weights, covariance).mean()


def test_independent_inputs_are_rounded_to_the_nearest_step():
    weights = np.random.default_rng(1).normal(size=(2, 3, 6))
    covariance = np.broadcast_to(np.diag([6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), (2, 6, 6))
    assert round_weights(weights, covariance) == pytest.approx(nearest(weights))


def test_small_kernel_comes_close_to_the_best_rounding():
    """All ways up and down of five weights, tried: ours is within twice the best error."""
    ours, best = 0.0, 0.0
    for seed in range(10):
        weights = np.random.default_rng(seed).normal(size=(1, 1, 5))
        covariance = covariance_of(1, 5, seed)
        scale = np.abs(weights).max() / 127
        floor = np.floor(weights / scale)
        tries = [
            error((floor + np.array(ups)) * scale, weights, covariance)[0, 0]
            for ups in itertools.product((0, 1), repeat=5)
        ]
        best += min(tries)
        ours += error(round_weights(weights, covariance), weights, covariance)[0, 0]
    assert best <= ours < 2 * best


def test_the_last_bits_of_the_covariance_do_not_decide():
    """Places of a kernel that see the same values in another order differ in nothing else."""
    draw = np.random.default_rng(0)
    weights = draw.normal(size=(200, 1, 9))
    covariance = covariance_of(200, 9, 0)
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    correlation = covariance / deviation[:, :, None] / deviation[:, None, :]
    other = correlation * (1 + draw.choice([-1e-15, 1e-15], size=correlation.shape))
    np.testing.assert_array_equal(
        round_weights(weights, correlation),
        round_weights(weights, (other + other.swapaxes(1, 2)) / 2),
    )


def test_dead_channels_and_dead_inputs_do_not_break_it():
    weights = np.random.default_rng(1).normal(size=(2, 2, 4))
    weights[0, 1] = 0
    covariance = covariance_of(2, 4, 1)
    covariance[1] = 0
    new = round_weights(weights, covariance)
    assert np.isfinite(new).all()
    assert not new[0, 1].any()
    assert new[1] == pytest.approx(nearest(weights[1:])[0])


@pytest.mark.parametrize("which", ["tiny_onnx", "doctored_onnx"])
def test_weights_alone_are_less_noisy_than_by_the_nearest_step(which, batches, request):
    model = request.getfixturevalue(which)
    pixels = pictures(64, 7)
    reference = logits_of(model, pixels)
    plain = WeightGraph(model)
    for node in plain.nodes:
        if node.op_type == "Conv":
            old = plain.weights[node.input[1]]
            flat = old.reshape(1, len(old), -1).astype(np.float64)
            plain.weights[node.input[1]] = nearest(flat).reshape(old.shape)
    ours, theirs = (
        sqnr_db(reference, logits_of(m, pixels))
        for m in (rounded(model, batches), plain.to_bytes())
    )
    assert ours > theirs + 1


def test_quantiser_finds_the_grid_again(tiny_onnx, batches, tmp_path):
    """Weights that stand on the grid come back from int8 as they were."""
    graph = WeightGraph(rounded(tiny_onnx, batches))
    int8 = onnx.load_from_string(static_int8(graph.to_bytes(), batches, tmp_path))
    stored = {t.name: numpy_helper.to_array(t) for t in int8.graph.initializer}
    checked = 0
    for node in graph.nodes:
        if node.op_type != "Conv":
            continue
        name = node.input[1]
        steps = stored[f"{name}_quantized"].astype(np.float64)
        scale = stored[f"{name}_scale"].reshape(-1, 1, 1, 1)
        largest = np.abs(graph.weights[name]).max()
        assert np.abs(steps * scale - graph.weights[name]).max() < 1e-5 * largest
        checked += 1
    assert checked == 10


def test_float_nodes_are_left_alone_and_the_rest_is_not(tiny_onnx, batches):
    stem = stem_nodes(tiny_onnx)
    before, after = WeightGraph(tiny_onnx), WeightGraph(rounded(tiny_onnx, batches, stem))
    for node in before.nodes:
        if node.op_type == "Conv":
            same = np.array_equal(before.weights[node.input[1]], after.weights[node.input[1]])
            assert same == (node.name in stem)


def test_wide_sums_are_left_to_the_nearest_step(tiny_onnx, batches, monkeypatch):
    graph = WeightGraph(tiny_onnx)
    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    widths = {n.input[1]: int(np.prod(graph.weights[n.input[1]].shape[1:])) for n in convolutions}
    bound = sorted(set(widths.values()))[-2]
    monkeypatch.setattr(quantize, "_MOST_INPUTS", bound)
    after = WeightGraph(rounded(tiny_onnx, batches))
    for name, width in widths.items():
        same = np.array_equal(graph.weights[name], after.weights[name])
        assert same == (width > bound)


def test_model_without_convolutions_to_round_stays_as_it_is(tiny_onnx, batches):
    every = [node.name for node in WeightGraph(tiny_onnx).nodes]
    assert rounded(tiny_onnx, batches, every) == tiny_onnx

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys

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
from pipelines.export.graphs import WeightGraph, logits_of
from pipelines.export.onnx_export import classifier_onnx
from pipelines.export.quantize import StaticQuantizer, equalized, round_weights, rounded, stem_nodes
from pipelines.metrics.classification import sqnr_db


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


# -- whole models ---------------------------------------------------------------------------------
@pytest.fixture
def batches(make_pictures) -> list[np.ndarray]:
    return [make_pictures(16, seed) for seed in (1, 2, 3)]


@pytest.mark.parametrize("which", ["tiny_onnx", "doctored_onnx"])
def test_weights_alone_are_less_noisy_than_by_the_nearest_step(
    which, batches, make_pictures, request
):
    model = request.getfixturevalue(which)
    pixels = make_pictures(64, 7)
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


def test_int8_of_a_rounded_model_is_less_noisy(doctored_onnx, batches, make_pictures, tmp_path):
    pixels = make_pictures(64, 7)
    reference = logits_of(doctored_onnx, pixels)
    model = equalized(doctored_onnx, batches)
    plain, ours = (
        sqnr_db(reference, logits_of(StaticQuantizer(m, batches, tmp_path).int8(), pixels))
        for m in (model, rounded(model, batches))
    )
    # Here activations make most of the noise; on pretrained weights the gain is 10 dB and more.
    assert ours > plain


def test_quantiser_finds_the_grid_again(tiny_onnx, batches, tmp_path):
    """Weights that stand on the grid come back from int8 as they were."""
    graph = WeightGraph(rounded(tiny_onnx, batches))
    int8 = onnx.load_from_string(StaticQuantizer(graph.to_bytes(), batches, tmp_path).int8())
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


def test_same_pictures_give_the_same_bytes(tiny_onnx, batches):
    assert rounded(tiny_onnx, batches) == rounded(tiny_onnx, batches)


_ROUND = """
import sys
from pathlib import Path
import numpy as np
from pipelines.export.quantize import rounded
folder = Path(sys.argv[1])
batches = list(np.load(folder / "pictures.npy"))
sys.stdout.buffer.write(rounded((folder / "model.onnx").read_bytes(), batches))
"""


def alike_channels_onnx() -> bytes:
    """A convolution whose 384 inputs are nearly one: what rounding makes of it hangs on small
    differences of its inputs' covariance.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        alike, reader = nn.Conv2d(3, 384, 3, padding=1), nn.Conv2d(384, 256, 1)
        alike.weight.data = torch.randn(1, 3, 3, 3) + 0.05 * torch.randn(384, 3, 3, 3)
        reader.weight.data = torch.randn(256, 384, 1, 1)
    model = Classifier([alike, reader], make_head(256, 2, (), 0.0), 1)
    return classifier_onnx(model.eval(), 32, IMAGENET_MEAN, IMAGENET_STD)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names kernels of x86")
def test_every_blas_kernel_gives_the_same_bytes(make_pictures, tmp_path):
    """A shell that names a kernel, or another OpenBLAS, must not make another file."""
    (tmp_path / "model.onnx").write_bytes(alike_channels_onnx())
    np.save(tmp_path / "pictures.npy", np.stack([make_pictures(16, seed) for seed in (1, 2, 3)]))
    by_kernel = [
        subprocess.run(
            [sys.executable, "-c", _ROUND, str(tmp_path)],
            env=os.environ | {"OPENBLAS_CORETYPE": kernel},
            capture_output=True,
            check=True,
        ).stdout
        for kernel in ("Prescott", "Haswell")
    ]
    assert by_kernel[0]
    assert by_kernel[0] == by_kernel[1]


def test_model_without_convolutions_to_round_stays_as_it_is(tiny_onnx, batches):
    every = [node.name for node in WeightGraph(tiny_onnx).nodes]
    assert rounded(tiny_onnx, batches, every) == tiny_onnx

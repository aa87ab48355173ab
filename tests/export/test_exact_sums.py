"""The exact int8 file: the same bits from every way of computing it."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipelines.backbones.heads import Classifier, make_head
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, torchvision_models
from pipelines.export.exact_sums import (
    Term,
    exact,
    make_stem_exact,
    n_near_halves,
    on_grid,
    short_scale,
    sure_scale,
)
from pipelines.export.graphs import logits_of, with_inner_features
from pipelines.export.onnx_export import INPUT_NAME, trunk_onnx
from pipelines.export.quantize import static_int8, stem_nodes
from pipelines.metrics.classification import sqnr_db
from pipelines.serving.vetting import vet
from tests.tiny_network import as_trained, pictures

scales = st.floats(1e-4, 1.0).map(lambda scale: float(np.float32(scale)))
zeros = st.integers(0, 255).map(float)


@pytest.fixture(scope="module")
def int8(doctored_onnx, batches, tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("exact")
    model = static_int8(doctored_onnx, batches, folder, float_nodes=stem_nodes(doctored_onnx))
    return with_inner_features(model)


def test_it_costs_next_to_no_noise_and_no_bytes_to_speak_of(int8, doctored_onnx):
    pixels = pictures(64, 8)
    reference = logits_of(doctored_onnx, pixels)
    before = sqnr_db(reference, logits_of(int8, pixels))
    after = sqnr_db(reference, logits_of(exact(int8), pixels))
    assert after > before - 3
    assert len(exact(int8)) < len(int8) + 2_000


def test_exact_is_deterministic_and_keeps_the_operators_that_are_let_in(int8):
    assert exact(int8) == exact(int8)
    assert vet(exact(int8)).outputs == vet(int8).outputs


def test_biases_follow_the_scale_of_their_input_and_means_have_a_short_one(int8):
    graph = onnx.load_from_string(exact(int8)).graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    writer = {name: node for node in graph.node for name in node.output}
    # What is replaced is left out.
    assert set(values) <= {name for node in graph.node for name in node.input}
    n_biases = n_means = 0
    for node in graph.node:
        read = [writer.get(name) for name in node.input]
        if node.op_type == "ReduceMean":
            assert (math.frexp(values[read[0].input[1]])[0] * 2**8).is_integer()
            n_means += 1
        elif node.op_type == "Conv" and len(read) == 3 and None not in read:
            if any(one.op_type != "DequantizeLinear" for one in read):
                continue
            pixels, weights, bias = (values[one.input[1]] for one in read)
            np.testing.assert_array_equal(
                (pixels.astype(np.float64) * weights).astype(np.float32).ravel(), bias.ravel()
            )
            n_biases += 1
    assert n_biases > 5
    # Of the head's level of the embedding and of the inner one.
    assert n_means == 2


# -- stem -----------------------------------------------------------------------------------------
@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 32), st.floats(1e-4, 1e3), st.booleans())
def test_sums_on_the_grid_are_exact_in_any_order(seed, n_in, scale, has_bias):
    generator = np.random.default_rng(seed)
    weights = generator.normal(0, scale, (2, n_in, 3, 3))
    bias = generator.normal(0, scale, 2) if has_bias else None
    grid_weights, grid_bias = on_grid(weights, bias, np.full(n_in, 1024.0))
    inputs = generator.integers(-1024, 1025, (n_in, 3, 3)).astype(np.float32)
    for kernel, offset in zip(grid_weights, grid_bias, strict=True):
        assert np.array_equal(kernel.astype(np.float32), kernel)
        terms = np.append((kernel * inputs).ravel(), offset).astype(np.float32)
        exact = float(terms.astype(np.float64).sum())
        for _ in range(3):
            generator.shuffle(terms)
            total = np.float32(0)
            for term in terms:
                total = np.float32(total + term)
            assert float(total) == exact


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-4, 1e3))
def test_grid_is_as_fine_as_exact_sums_allow(seed, scale):
    weights = np.random.default_rng(seed).normal(0, scale, (3, 8, 3, 3))
    largest = np.full(8, 1024.0)
    grid, _ = on_grid(weights, None, largest)
    bound = np.abs(weights).sum(axis=(1, 2, 3)) * 1024
    # Half a step; a step is at most four 2**24ths of the largest sum.
    assert (np.abs(grid - weights).max(axis=(1, 2, 3)) <= bound * 2.0**-23).all()


def test_stem_of_mobilenet_v2_answers_as_before(tiny_onnx):
    proto = onnx.load_from_string(tiny_onnx)
    assert make_stem_exact(proto.graph)
    onnx.checker.check_model(proto)
    pixels = pictures(8, 5)
    before, after = logits_of(tiny_onnx, pixels), logits_of(proto.SerializeToString(), pixels)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("HardSigmoid") == 2
    assert "Mul" not in kinds


@pytest.mark.parametrize("top", [None, 5.0], ids=["hard swish", "ReLU with another end"])
def test_another_stem_is_left_as_it_is(top, tiny_onnx):
    proto = onnx.load_from_string(tiny_onnx)
    clip = next(node for node in proto.graph.node if node.op_type == "Clip")
    if top is None:
        clip.op_type = "HardSwish"
        del clip.input[1:]
    else:
        clip.input[2] = "top"
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(top), "top"))
    before = proto.SerializeToString(deterministic=True)
    assert not make_stem_exact(proto.graph)
    assert proto.SerializeToString(deterministic=True) == before


def test_stem_gives_the_same_bits_in_every_layout():
    """With all optimisations convolutions run in another layout, and add in another order.

    Where they are as wide as MobileNetV2's.
    """
    v2 = torchvision_models().mobilenetv2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        blocks = [
            v2.Conv2dNormActivation(3, 32, stride=2, activation_layer=nn.ReLU6),
            v2.InvertedResidual(32, 16, 1, 1),
        ]
    net = Classifier(blocks, make_head(16, 2, (), 0.0), 2)
    as_trained(net, pictures(48, 0, 64))
    stem = trunk_onnx(net.eval(), 64, IMAGENET_MEAN, IMAGENET_STD)
    pixels = pictures(4, 5, 64)

    def outputs(model: bytes) -> list[np.ndarray]:
        found = []
        for level in ("BASIC", "EXTENDED", "ALL"):
            options = ort.SessionOptions()
            options.graph_optimization_level = getattr(
                ort.GraphOptimizationLevel, f"ORT_ENABLE_{level}"
            )
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            found.append(session.run(None, {INPUT_NAME: pixels})[0])
        return found

    plain, extended, full = outputs(stem)
    if np.array_equal(extended, full):
        pytest.skip("this processor has one layout only")
    proto = onnx.load_from_string(stem)
    assert make_stem_exact(proto.graph)
    basic, *others = outputs(proto.SerializeToString())
    assert all(np.array_equal(basic, other) for other in others)
    # A step of an activation is 6/1024: 46 dB.
    assert sqnr_db(plain, basic) > 40


# -- additions and the mean -----------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(scales, scales, zeros, zeros, zeros)
def test_sure_sums_of_bytes_are_the_same_in_every_order_of_operations(sa, sb, za, zb, zc):
    # As a residual addition's scales are: the sum's step is near those of its sides.
    start = Term(float(np.float32(max(sa, sb) * 1.1)), zc)
    a, b = Term(sa, za), Term(sb, zb)
    total = Term(sure_scale(a, b, start), zc)
    assert start.scale <= total.scale <= start.scale * 1.0101
    if n_near_halves(a, b, total):
        return
    f32 = np.float32
    ra, rb = f32(sa) / f32(total.scale), f32(sb) / f32(total.scale)
    bytes_ = np.arange(256, dtype=np.float32)
    left, right = bytes_[:, None], bytes_[None, :]
    plain = (f32(zc) - (ra * f32(za) + rb * f32(zb))) + ra * left + rb * right
    # Fused: the product is not rounded before it is added.
    r64a, r64b = float(ra), float(rb)
    shift = f32(zc - float(f32(r64a * za + float(rb * f32(zb)))))
    fused = (float(shift) + r64a * left.astype(float)).astype(np.float32)
    fused = (fused.astype(float) + r64b * right.astype(float)).astype(np.float32)
    swapped = (ra * (left - f32(za)) + rb * (right - f32(zb))) + f32(zc)
    rounded = [np.clip(np.rint(sums), 0, 255) for sums in (plain, fused, swapped)]
    assert np.array_equal(rounded[0], rounded[1])
    assert np.array_equal(rounded[0], rounded[2])


def test_near_halves_are_found():
    # A ratio of one half: every odd sum of the two bytes lies exactly between two steps.
    assert n_near_halves(Term(1.0, 0), Term(1.0, 0), Term(2.0, 0)) > 20_000
    assert n_near_halves(Term(1.0, 0), Term(1.0, 0), Term(1.0, 0)) == 0


@given(st.floats(1e-6, 1e3))
def test_short_scale_is_a_little_larger_and_has_eight_bits(scale):
    short = short_scale(scale)
    assert scale <= short <= scale * (1 + 2**-7)
    mantissa, _ = math.frexp(short)
    assert (mantissa * 2**8).is_integer()

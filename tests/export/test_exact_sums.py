"""The exact int8 file: the same bits from every way of computing it."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.export.exact_sums import Term, exact, n_near_halves, short_scale, sure_scale
from pipelines.export.graphs import logits_of
from pipelines.export.quantize import StaticQuantizer, stem_nodes
from pipelines.metrics.classification import sqnr_db

scales = st.floats(1e-4, 1.0).map(lambda scale: float(np.float32(scale)))
zeros = st.integers(0, 255).map(float)


@pytest.fixture(scope="module")
def int8(doctored_onnx, make_pictures, tmp_path_factory) -> bytes:
    batches = [make_pictures(16, seed) for seed in (1, 2, 3)]
    quantizer = StaticQuantizer(doctored_onnx, batches, tmp_path_factory.mktemp("exact"))
    return quantizer.int8(float_nodes=stem_nodes(doctored_onnx))


def test_it_costs_next_to_no_noise_and_no_bytes_to_speak_of(int8, doctored_onnx, make_pictures):
    pictures = make_pictures(64, 8)
    reference = logits_of(doctored_onnx, pictures)
    before = sqnr_db(reference, logits_of(int8, pictures))
    after = sqnr_db(reference, logits_of(exact(int8), pictures))
    assert after > before - 3
    assert len(exact(int8)) < len(int8) + 2_000


def test_exact_is_deterministic_and_keeps_the_operators_that_are_let_in(int8):
    from pipelines.serving.vetting import vet

    assert exact(int8) == exact(int8)
    assert vet(exact(int8)).outputs == vet(int8).outputs


def test_biases_follow_the_scale_of_their_input(int8):
    graph = onnx.load_from_string(exact(int8)).graph
    values = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    writer = {name: node for node in graph.node for name in node.output}
    n_checked = 0
    for node in graph.node:
        read = [writer.get(name) for name in node.input]
        if node.op_type == "Conv" and len(read) == 3 and None not in read:
            if any(one.op_type != "DequantizeLinear" for one in read):
                continue
            pixels, weights, bias = (values[one.input[1]] for one in read)
            np.testing.assert_array_equal(
                (pixels.astype(np.float64) * weights).astype(np.float32).ravel(), bias.ravel()
            )
            n_checked += 1
    assert n_checked > 5


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

"""The stem's grid: sums that are the same in any order."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from pipelines.export.exact_sums import make_stem_exact, on_grid
from pipelines.export.graphs import logits_of


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


def test_stem_of_mobilenet_v2_answers_as_before(tiny_onnx, make_pictures):
    proto = onnx.load_from_string(tiny_onnx)
    assert make_stem_exact(proto.graph)
    onnx.checker.check_model(proto)
    pictures = make_pictures(8, 5)
    before, after = logits_of(tiny_onnx, pictures), logits_of(proto.SerializeToString(), pictures)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, before, atol=0.05 * np.abs(before).max())
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("HardSigmoid") == 2
    assert "Mul" not in kinds


def test_another_stem_is_left_as_it_is(tiny_onnx):
    proto = onnx.load_from_string(tiny_onnx)
    first = next(node for node in proto.graph.node if node.op_type == "Clip")
    first.op_type = "HardSwish"
    del first.input[1:]
    before = proto.SerializeToString(deterministic=True)
    assert not make_stem_exact(proto.graph)
    assert proto.SerializeToString(deterministic=True) == before


def test_relu_with_another_end_is_another_stem(tiny_onnx):
    proto = onnx.load_from_string(tiny_onnx)
    clip = next(node for node in proto.graph.node if node.op_type == "Clip")
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(np.array(5, dtype=np.float32), "five")
    )
    clip.input[2] = "five"
    assert not make_stem_exact(proto.graph)


# -- the bits of a stem as wide as MobileNetV2's ---------------------------------------------------
@pytest.fixture(scope="module")
def wide_stem() -> onnx.ModelProto:
    generator = np.random.default_rng(4)

    def constant(name: str, *shape: int, scale: float = 1.0) -> onnx.TensorProto:
        values = generator.normal(0, scale, shape).astype(np.float32)
        return numpy_helper.from_array(values, name)

    constants = [
        numpy_helper.from_array(np.full((3, 1, 1), 1 / 58, np.float32), "scale"),
        numpy_helper.from_array(np.full((3, 1, 1), -2.1, np.float32), "shift"),
        numpy_helper.from_array(np.array(0, np.float32), "low"),
        numpy_helper.from_array(np.array(6, np.float32), "high"),
        *(constant("w1", 32, 3, 3, 3, scale=0.5), constant("b1", 32)),
        *(constant("w2", 32, 1, 3, 3, scale=0.5), constant("b2", 32)),
        *(constant("w3", 16, 32, 1, 1, scale=0.3), constant("b3", 16)),
    ]
    square = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["normal"]),
        helper.make_node("Conv", ["normal", "w1", "b1"], ["c1"], strides=[2, 2], **square),
        helper.make_node("Clip", ["c1", "low", "high"], ["a1"]),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], group=32, **square),
        helper.make_node("Clip", ["c2", "low", "high"], ["a2"]),
        helper.make_node("Conv", ["a2", "w3", "b3"], ["out"], kernel_shape=[1, 1]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, 64, 64])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 16, 32, 32])
    graph = helper.make_graph(nodes, "stem", [image], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def outputs(model: onnx.ModelProto, level: ort.GraphOptimizationLevel) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    data = model.SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(5).integers(0, 256, (4, 1, 3, 64, 64), np.uint8)
    return np.stack([session.run(None, {"image": image})[0] for image in images])


def test_stem_gives_the_same_bits_in_every_layout(wide_stem):
    """With all optimisations convolutions run in another layout, and add in another order."""
    levels = ort.GraphOptimizationLevel
    basic, extended, full = (
        outputs(wide_stem, level)
        for level in (levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_ALL)
    )
    if np.array_equal(extended, full):
        pytest.skip("this processor has one layout only")
    exact = onnx.ModelProto.FromString(wide_stem.SerializeToString())
    assert make_stem_exact(exact.graph)
    results = [
        outputs(exact, level) for level in (levels.ORT_ENABLE_ALL, levels.ORT_ENABLE_EXTENDED)
    ]
    results.append(outputs(exact, levels.ORT_ENABLE_BASIC))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])
    # A step of an activation is 6/1024; some 300 products of it add up.
    assert np.abs(results[0] - basic).max() < 0.05

from __future__ import annotations

import numpy as np
import onnx
import pytest

from pipelines.mobile.export import EMBEDDING_NAME, INPUT_NAME, LOGITS_NAME
from pipelines.mobile.graphs import add_to_logits, blocks_of, logits_of
from pipelines.mobile.predictor import make_session


@pytest.mark.parametrize("n", [1, 32, 33, 70])
def test_logits_of_any_number_of_pictures(n, tiny_onnx, make_pictures):
    pixels = make_pictures(n, 1)
    got = logits_of(tiny_onnx, pixels)
    expected = make_session(tiny_onnx).run([LOGITS_NAME], {INPUT_NAME: pixels})[0]
    assert got.shape == (n, 4)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_blocks_are_a_partition_of_the_nodes_in_order(tiny_onnx):
    nodes = [node.name for node in onnx.load_from_string(tiny_onnx).graph.node]
    blocks = blocks_of(tiny_onnx)
    assert [name for block in blocks for name in block] == nodes
    assert len(blocks) == 5


def test_a_block_holds_its_own_weights_alone(tiny_onnx):
    graph = onnx.load_from_string(tiny_onnx).graph
    inputs = {node.name: list(node.input) for node in graph.node}
    for index, block in enumerate(blocks_of(tiny_onnx)):
        numbers = {
            name.split("blocks.", 1)[1].split(".", 1)[0]
            for node in block
            for name in inputs[node]
            if "blocks." in name
        }
        assert numbers == {str(index)}


def test_shift_is_added_to_the_logits_and_to_nothing_else(tiny_onnx, make_pictures):
    shift = np.float32([1, -2, 0.5, 0])
    pixels = make_pictures(5, 1)
    before = make_session(tiny_onnx).run([LOGITS_NAME, EMBEDDING_NAME], {INPUT_NAME: pixels})
    after = make_session(add_to_logits(tiny_onnx, shift)).run(
        [LOGITS_NAME, EMBEDDING_NAME], {INPUT_NAME: pixels}
    )
    np.testing.assert_allclose(after[0], before[0] + shift, atol=1e-4)
    assert np.array_equal(after[1], before[1])


def test_shift_finds_a_place_where_the_bias_is_zero_and_was_left_out(tiny_onnx, make_pictures):
    proto = onnx.load_from_string(tiny_onnx)
    (head,) = [node for node in proto.graph.node if node.op_type == "Gemm"]
    del head.input[2]
    model = proto.SerializeToString()
    shift = np.float32([1, -2, 0.5, 0])
    pixels = make_pictures(5, 1)
    shifted = logits_of(add_to_logits(model, shift), pixels)
    np.testing.assert_allclose(shifted, logits_of(model, pixels) + shift, atol=1e-4)


def test_shift_of_another_size_is_refused(tiny_onnx):
    with pytest.raises(ValueError, match="no bias of the logits' size"):
        add_to_logits(tiny_onnx, np.zeros(7, dtype=np.float32))

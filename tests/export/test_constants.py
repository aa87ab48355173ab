from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from pipelines.export.exact_sums import Constants


def graph():
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    return helper.make_graph(
        [helper.make_node("Add", ["x", "a"], ["y"])],
        "g",
        [info],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.array([2], np.float32), "a")],
    )


def test_values_are_read_by_name():
    constants = Constants(graph())
    assert "a" in constants
    assert "x" not in constants
    assert constants.value("a").tolist() == [2.0]
    assert constants.scalar("a") == 2.0
    assert constants.scalar("x") is None


def test_a_name_that_is_taken_gets_a_number():
    of = graph()
    constants = Constants(of)
    name = constants.add("a", [3, 4], np.int32)
    assert name != "a"
    assert constants.value(name).tolist() == [3, 4]
    assert constants.scalar(name) is None
    assert {tensor.name for tensor in of.initializer} == {"a", name}


def test_what_nobody_reads_is_dropped():
    of = graph()
    constants = Constants(of)
    constants.add("b", 1.0)
    constants.drop_unused()
    assert [tensor.name for tensor in of.initializer] == ["a"]
    assert "b" not in constants

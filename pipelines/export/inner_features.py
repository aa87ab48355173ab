"""A second level of the embedding: what the network saw before its last block made up its mind.

The last layer learns to keep what tells the labels apart, and drops the rest, also what makes a cat
unlike a lesion. What the last convolution with a kernel reads, depthwise in MobileNets, still has
it (docs/adr/0018). The level is put into the file, fp32 and int8 alike, so that whoever runs the
file has it.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pipelines.export.graphs import kernel_shapes, n_groups_of
from pipelines.serving.answer import EMBEDDING_NAME

_HEAD_NAME, _INNER_NAME = "head_embedding", "inner_embedding"


def with_inner_features(model: bytes) -> bytes:
    """The same classifier, whose embedding has two levels.

    Args:
        model: ONNX bytes, float32 or int8 in QDQ form, as `classifier_onnx` and the quantiser give
            them.

    Returns:
        ONNX bytes; the output ``embedding`` is (n, d + e): the head's d values, and the means over
        the picture of the e channels that the last convolution with a kernel reads; the last of
        all where every kernel is 1x1.

    Raises:
        ValueError: if there is no convolution.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    convolutions = kernel_shapes(graph)
    if not convolutions:
        raise ValueError("the network has no convolution")
    with_kernel = [found for found in convolutions if max(found[1][2:]) > 1]
    last, shape = (with_kernel or convolutions)[-1]
    for node in graph.node:
        node.input[:] = [_HEAD_NAME if name == EMBEDDING_NAME else name for name in node.input]
        node.output[:] = [_HEAD_NAME if name == EMBEDDING_NAME else name for name in node.output]
    axes = numpy_helper.from_array(np.array([2, 3], dtype=np.int64), f"{_INNER_NAME}_axes")
    graph.initializer.append(axes)
    read = [last.input[0], axes.name]
    mean = helper.make_node("ReduceMean", read, [_INNER_NAME], _INNER_NAME, keepdims=0)
    levels = [_HEAD_NAME, _INNER_NAME]
    graph.node.extend(
        [mean, helper.make_node("Concat", levels, [EMBEDDING_NAME], EMBEDDING_NAME, axis=1)]
    )
    output = next(value for value in graph.output if value.name == EMBEDDING_NAME)
    output.type.tensor_type.shape.dim[1].dim_value += n_groups_of(last) * shape[1]
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data

"""Weights that are stored as bytes and computed with in float32.

Such a file is a quarter as large as its float32 form and as fast: ONNX Runtime unpacks the weights
once, when it loads the file. It folds a cast and a product of constants, but no DequantizeLinear:
behind one MobileNetV3-Small took 2.7 times as long (docs/experiments/int8.md).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

#: Largest step of a symmetric int8 weight, as ONNX Runtime's quantiser scales them.
_LAST_STEP = 127
#: Bytes that two more nodes and their names take, at most; a smaller tensor stays as it is.
_NODES_BYTES = 300


def with_byte_weights(model: bytes, nodes: Collection[str] | None = None) -> bytes:
    """A model whose float weights of convolutions and of the head are int8, a scale a channel.

    Weights on their channel's grid of largest magnitude / 127 (`quantize.rounded`) keep their
    values.

    Args:
        model: ONNX bytes. What is int8 in it already stays as it is.
        nodes: names of those whose weights are stored so; None: all.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    unpacking: list[NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.op_type not in {"Conv", "Gemm"} or (nodes is not None and node.name not in nodes):
            continue
        name = node.input[1]
        if name in done or name not in tensors or tensors[name].data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensors[name])
        axis = 0 if node.op_type == "Conv" or _is_transposed(node) else 1
        others = tuple(each for each in range(values.ndim) if each != axis)
        scale = np.abs(values).max(axis=others, keepdims=True) / np.float32(_LAST_STEP)
        if 3 * values.size < 4 * scale.size + _NODES_BYTES:
            continue
        scale[scale == 0] = 1
        steps = np.clip(np.rint(values / scale), -_LAST_STEP, _LAST_STEP).astype(np.int8)
        tensors[name].CopyFrom(numpy_helper.from_array(steps, f"{name}_steps"))
        graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
        cast = f"{name}_cast"
        unpacking += [
            helper.make_node("Cast", [f"{name}_steps"], [cast], cast, to=TensorProto.FLOAT),
            helper.make_node("Mul", [cast, f"{name}_scale"], [name], f"{name}_unpacked"),
        ]
        done.add(name)
    others_nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*unpacking, *others_nodes])
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _is_transposed(node: NodeProto) -> bool:
    return any(a.name == "transB" and a.i == 1 for a in node.attribute)

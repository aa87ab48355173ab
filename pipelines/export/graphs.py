"""Looking into, running and amending an ONNX classifier held in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper

from pipelines.data.workers import n_workers
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.sessions import make_session

#: Where ReLU6 cuts off.
RELU6_TOP = 6.0

#: What `with_inner_features` gives.
EMBEDDING_MEANING = (
    "pooled features of the last block, then those that its last depthwise convolution reads; "
    "tells pictures out of distribution"
)
#: Pictures that go through a session at once.
_BATCH = 32


class Links:
    """Nodes in the order in which they run, and by the tensors that they make and read.

    Of a graph without subgraphs; what is added to it later is not found.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.nodes: list[NodeProto] = list(graph.node)
        self.writer = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)


class WeightGraph(Links):
    """The nodes of a float32 model, and its weights by name; assign to change one."""

    def __init__(self, model: bytes) -> None:
        self._model = onnx.load_from_string(model)
        graph = self._model.graph
        super().__init__(graph)
        self.weights = {
            tensor.name: numpy_helper.to_array(tensor).copy() for tensor in graph.initializer
        }
        self.outputs = {output.name for output in graph.output}

    def is_pointwise(self, node: NodeProto) -> bool:
        """Whether it is a 1x1 convolution without groups."""
        return (
            node.op_type == "Conv"
            and self.weights[node.input[1]].shape[2:] == (1, 1)
            and n_groups_of(node) == 1
        )

    def has_bias(self, node: NodeProto) -> bool:
        """Whether a convolution has a bias that can be changed."""
        return len(node.input) > 2 and node.input[2] in self.weights

    def to_bytes(self) -> bytes:
        """The model with the weights as they are now."""
        for tensor in self._model.graph.initializer:
            old = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(self.weights[tensor.name].astype(old.dtype), tensor.name)
            )
        data: bytes = self._model.SerializeToString(deterministic=True)
        return data


def n_groups_of(node: NodeProto) -> int:
    """Groups of a convolution: as many as channels that it reads where it is depthwise."""
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def session_with(model: bytes, names: Iterable[str]) -> ort.InferenceSession:
    """A session that also gives inner tensors."""
    watched = onnx.load_from_string(model)
    for name in dict.fromkeys(names):
        watched.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    return make_session(watched.SerializeToString(), n_workers())


def logits_of(model: bytes, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, n_classes) of (n, h, w, 3) pictures."""
    session = make_session(model, n_workers())
    parts = [
        session.run([LOGITS_NAME], {INPUT_NAME: pixels[start : start + _BATCH]})[0]
        for start in range(0, len(pixels), _BATCH)
    ]
    return np.concatenate(parts)


def blocks_of(model: bytes) -> list[tuple[str, ...]]:
    """Node names by the network's block, in order; what stands before the first belongs to it.

    A block is known by its weights, which the exporter names ``….blocks.<number>.…``.
    """
    blocks: dict[str, list[str]] = {}
    current = "0"
    for node in onnx.load_from_string(model).graph.node:
        for name in node.input:
            head, marker, rest = name.partition("blocks.")
            if marker and "." in rest and not head.replace(".", "").isdigit():
                current = rest.split(".", 1)[0]
        blocks.setdefault(current, []).append(node.name)
    return [tuple(names) for names in blocks.values()]


def constant_nodes(graph: GraphProto) -> list[str]:
    """Names of the nodes that no input of the graph can change."""
    constant = {tensor.name for tensor in graph.initializer}
    found = []
    for node in graph.node:
        if all(name in constant for name in node.input if name):
            constant.update(node.output)
            found.append(node.name)
    return found


def convolutions_of(model: bytes) -> frozenset[str]:
    """Names of the convolutions."""
    nodes = onnx.load_from_string(model).graph.node
    return frozenset(node.name for node in nodes if node.op_type == "Conv")


def operators_of(model: bytes) -> frozenset[str]:
    """Kinds of its nodes."""
    return frozenset(node.op_type for node in onnx.load_from_string(model).graph.node)


def add_to_logits(model: bytes, shift: NDArray[np.float32]) -> bytes:
    """A float32 model whose logits are shifted by (n_classes,), by way of the head's last bias."""
    proto = onnx.load_from_string(model)
    writer = next(node for node in proto.graph.node if LOGITS_NAME in node.output)
    if writer.op_type == "Gemm" and len(writer.input) == 2:
        # The exporter leaves out a bias of zeros.
        name = f"{LOGITS_NAME}_bias"
        proto.graph.initializer.append(numpy_helper.from_array(np.zeros_like(shift), name))
        writer.input.append(name)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.name in writer.input and values.shape == shift.shape:
            corrected = (values + shift).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(corrected, tensor.name))
            data: bytes = proto.SerializeToString(deterministic=True)
            return data
    raise ValueError("the head's last layer has no bias of the logits' size")


def with_output(model: bytes, add: Callable[[GraphProto, ValueInfoProto], ValueInfoProto]) -> bytes:
    """The same model with another output in the place of its logits.

    Args:
        add: adds nodes that read `LOGITS_NAME`; from the output as it was to what takes its place.
    """
    proto = onnx.load_from_string(model)
    outputs = proto.graph.output
    index, given = next((i, out) for i, out in enumerate(outputs) if out.name == LOGITS_NAME)
    outputs[index].CopyFrom(add(proto.graph, given))
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def with_short_names(model: bytes) -> bytes:
    """The same model with its inner names replaced by short ones; on int8 they are 3 % of the file.

    Inputs and outputs keep their names.
    """
    graph_model = onnx.load_from_string(model)
    graph = graph_model.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)}

    def short(name: str) -> str:
        # An empty name stands for an optional input that is left out.
        return names.setdefault(name, f"t{len(names)}") if name else name

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
    for index, node in enumerate(graph.node):
        node.name = f"n{index}"
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
    del graph.value_info[:]
    data: bytes = graph_model.SerializeToString(deterministic=True)
    return data


# -- inner features -------------------------------------------------------------------------------
_HEAD_NAME, _INNER_NAME = "head_embedding", "inner_embedding"


def with_inner_features(model: bytes) -> bytes:
    """The same classifier, whose embedding also tells what its last block read.

    The last layer learns to keep what tells the labels apart, and drops the rest, also what makes a
    cat unlike a lesion. What the last convolution with a kernel reads, depthwise in MobileNets,
    still has it (docs/adr/0018). In the file, whoever runs it has it.

    Args:
        model: ONNX bytes, float32 or int8 in QDQ form.

    Returns:
        ONNX bytes; the output ``embedding`` is (n, d + e): the head's d values, and the means over
        the picture of the e channels that the last convolution with a kernel reads; the last of
        all where every kernel is 1x1.
    """
    proto = onnx.load_from_string(model)
    graph = proto.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    # A quantised weight is read through the node that dequantises it.
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    # With shapes of weights: (c_out, c_in / groups, height, width). A head's own do not count.
    of_blocks = [n for n in graph.node if n.op_type == "Conv" and "blocks." in n.input[1]]
    all_of_them = [n for n in graph.node if n.op_type == "Conv"]
    convolutions = [(n, shapes[n.input[1]]) for n in of_blocks or all_of_them]
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

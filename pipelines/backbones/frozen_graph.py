"""Convolutions of TensorFlow's frozen graphs, with their batch norms, as torch has them.

A frozen graph is one message of protocol buffers: the operations, the weights among them as
constants. TensorFlow itself is not needed: the few fields that are read are declared here.

References:
    TensorFlow 1.15, ``graph.proto``, ``node_def.proto``, ``attr_value.proto`` and ``tensor.proto``
    for the numbers of the fields; tf.slim's ``conv2d`` and ``batch_norm`` for the names.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

#: By the end of a kernel's name: its axes in the order in which torch wants them, from (h, w, in,
#: out) and from (h, w, in, 1) of a depthwise one.
_AXES = {"/weights": (3, 2, 0, 1), "/depthwise_weights": (2, 3, 0, 1)}
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


@cache
def graph_def() -> type[Any]:
    """The message class of a graph, with the fields that are read."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    many, one = field.LABEL_REPEATED, field.LABEL_OPTIONAL
    messages = {
        "Dim": {"size": (1, field.TYPE_INT64, one)},
        "Shape": {"dim": (2, "Dim", many)},
        "Array": {
            "shape": (2, "Shape", one),
            "content": (4, field.TYPE_BYTES, one),
            "floats": (5, field.TYPE_FLOAT, many),
        },
        "Value": {"array": (8, "Array", one)},
        "Attr": {"key": (1, field.TYPE_STRING, one), "value": (2, "Value", one)},
        "Node": {
            "name": (1, field.TYPE_STRING, one),
            "op": (2, field.TYPE_STRING, one),
            "attr": (5, "Attr", many),
        },
        "Graph": {"node": (1, "Node", many)},
    }
    file = descriptor_pb2.FileDescriptorProto(name="graph", package="graph", syntax="proto3")
    for title, fields in messages.items():
        message = file.message_type.add(name=title)
        for name, (number, kind, label) in fields.items():
            of = {"type": kind}
            if isinstance(kind, str):
                of = {"type": field.TYPE_MESSAGE, "type_name": f".graph.{kind}"}
            message.field.add(name=name, number=number, label=label, **of)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found: type[Any] = message_factory.GetMessageClass(pool.FindMessageTypeByName("graph.Graph"))
    return found


def trunk_of(data: bytes, scopes: tuple[str, ...], eps: tuple[float, float]) -> dict[str, Tensor]:
    """Kernels and batch norms of a graph, in the order in which they stand there.

    Behind each kernel come its norm's weight, bias, mean, variance and counter, as a torch network
    of convolutions with norms has them.

    Args:
        scopes: how the names of the layers begin that are wanted.
        eps: of the graph's batch norms, and of those that take its variances; the difference is
            added to these, so that the function stays.

    Raises:
        SourceError: if it is no frozen graph, or a layer of these has no batch norm.
    """
    import torch
    from google.protobuf.message import DecodeError

    try:
        nodes = graph_def().FromString(data).node
        arrays = {
            node.name: _array(node)
            for node in nodes
            if node.op == "Const" and node.name.startswith(scopes)
        }
        found: dict[str, Tensor] = {}
        for name, values in arrays.items():
            ending = f"/{name.rpartition('/')[2]}"
            if ending not in _AXES:
                continue
            layer = name.removesuffix(ending)
            found[name] = torch.from_numpy(np.ascontiguousarray(values.transpose(_AXES[ending])))
            for part in _NORM:
                norm = arrays[f"{layer}/BatchNorm/{part}"]
                added = eps[0] - eps[1] if part == "moving_variance" else 0.0
                found[f"{layer}/{part}"] = torch.from_numpy(norm + np.float32(added))
            found[f"{layer}/counter"] = torch.tensor(0)
    except (DecodeError, KeyError, ValueError) as err:
        raise SourceError(f"this is no frozen graph of such layers ({err!r})") from err
    if not found:
        raise SourceError(f"the graph has no layer whose name begins with {' or '.join(scopes)}")
    return found


def _array(node: Any) -> NDArray[np.float32]:
    array = next(attr.value.array for attr in node.attr if attr.key == "value")
    shape = [dim.size for dim in array.shape.dim]
    values = np.frombuffer(array.content, "<f4") if array.content else np.float32(array.floats)
    return values.reshape(shape)

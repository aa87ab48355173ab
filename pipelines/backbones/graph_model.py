"""Convolutions of TensorFlow.js graph models, as torch has them.

A graph model is a JSON file, which names the operations and the shape of each weight, and binary
files with the weights one behind the other. What is read here is what a network's trunk is made
of: convolutions with their bias, batch norms folded into both. Where a converter left a norm's
factor or its summand an operation of its own, right behind the convolution, it is folded here.
Which activations stand between them is not read: that is for the network that takes the weights,
and for its test.

References:
    TensorFlow.js, "graph-model" of tfjs-core's ``io.ModelJSON``; tf.nn.conv2d and
    tf.nn.depthwise_conv2d for the order of a kernel's axes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import SourceError

if TYPE_CHECKING:
    from torch import Tensor

#: Axes of a kernel in the order in which torch wants them: from (h, w, in, out), and from
#: (h, w, in, 1) of a depthwise one.
_AXES = {
    "_FusedConv2D": (3, 2, 0, 1),
    "Conv2D": (3, 2, 0, 1),
    "FusedDepthwiseConv2dNative": (2, 3, 0, 1),
    "DepthwiseConv2dNative": (2, 3, 0, 1),
}
_STORED = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "bool": "?"}


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution of a graph.

    Attributes:
        name: of its operation.
        kernel: (out, in / groups, h, w), float32.
        bias: (out,), float32; None where it has none.
    """

    name: str
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    def with_inputs_reversed(self) -> Convolution:
        """The same for inputs whose channels come the other way round."""
        return replace(self, kernel=np.ascontiguousarray(self.kernel[:, ::-1]))


def convolutions_of(document: bytes, weights: bytes, scopes: tuple[str, ...]) -> list[Convolution]:
    """The convolutions of a graph model in the order in which they run.

    Args:
        document: the JSON file.
        weights: the binary files, one behind the other.
        scopes: how the names of the operations begin that are wanted.

    Raises:
        SourceError: if it is no graph model, or has a kernel of a kind that is not known.
    """
    try:
        model = json.loads(document)
        arrays = dict(_arrays(model["weightsManifest"], weights))
        nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
        behind = _behind(nodes)
        return [
            _with_norm(_convolution(node, arrays), behind, arrays)
            for node in _in_order(nodes)
            if node["op"] in _AXES and node["name"].startswith(scopes)
        ]
    except (ValueError, KeyError, TypeError, IndexError) as err:
        raise SourceError(f"this is no graph model of TensorFlow.js ({err!r})") from err


def _arrays(groups: list[Any], data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    start = 0
    for entry in (entry for group in groups for entry in group["weights"]):
        kind = entry.get("quantization", entry)["dtype"]
        if kind not in _STORED:
            raise SourceError(f"weights of type {kind} are not known")
        n_values = int(np.prod(entry["shape"], dtype=np.int64))
        values = np.frombuffer(data, _STORED[kind], n_values, start)
        start += values.nbytes
        yield entry["name"], values.reshape(entry["shape"])
    if start != len(data):
        raise SourceError(f"the graph has {start:,} bytes of weights, the file {len(data):,}")


def _in_order(nodes: Mapping[str, Any]) -> Iterator[Any]:
    """Operations, each behind those that it reads."""
    # ``name:1`` is the second output of an operation, ``^name`` one that only has to have run.
    read = {
        name: [each.lstrip("^").partition(":")[0] for each in node.get("input", ())]
        for name, node in nodes.items()
    }
    return (nodes[name] for name in TopologicalSorter(read).static_order())


def _behind(nodes: Mapping[str, Any]) -> dict[str, list[Any]]:
    """By name of an operation, those that read it first."""
    found: dict[str, list[Any]] = {}
    for node in nodes.values():
        if node.get("input"):
            found.setdefault(node["input"][0].partition(":")[0], []).append(node)
    return found


def _with_norm(
    convolution: Convolution, behind: Mapping[str, list[Any]], arrays: Mapping[str, NDArray[Any]]
) -> Convolution:
    """A convolution, and the factor and the summand a channel that alone read what it gives."""
    kernel, bias = convolution.kernel, convolution.bias
    last = convolution.name
    while len(readers := behind.get(last, [])) == 1:
        node = readers[0]
        values = arrays.get(node["input"][-1])
        if node["op"] not in ("Mul", "Add", "AddV2", "BiasAdd") or values is None:
            break
        if values.shape != kernel.shape[:1]:
            break
        values = values.astype(np.float32)
        if node["op"] == "Mul":
            kernel = kernel * values[:, np.newaxis, np.newaxis, np.newaxis]
            bias = None if bias is None else bias * values
        else:
            bias = values if bias is None else bias + values
        last = node["name"]
    return replace(convolution, kernel=kernel, bias=bias)


def _convolution(node: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Convolution:
    _, kernel, *others = node["input"]
    values = arrays[kernel].transpose(_AXES[node["op"]]).astype(np.float32)
    if "Depthwise" in node["op"] and values.shape[1] != 1:
        raise SourceError(f"{node['name']}: a depthwise kernel with more than one output a channel")
    bias = arrays[others[0]].astype(np.float32) if others else None
    return Convolution(node["name"], np.ascontiguousarray(values), bias)


def as_state(convolutions: list[Convolution], names: list[str], eps: float) -> dict[str, Tensor]:
    """Convolutions as the tensors of a network that has a batch norm where the graph has a bias.

    Such a norm gets the bias and leaves everything else as it is.

    Args:
        convolutions: in the order in which they run.
        names: of the network's tensors, in the same order.
        eps: of its batch norms.

    Raises:
        SourceError: if they are not as many as the network has, or one lacks its bias.
    """
    import torch

    modules: dict[str, list[str]] = {}
    for name in names:
        module, _, part = name.rpartition(".")
        modules.setdefault(module, []).append(part)
    n_wanted = sum("running_var" not in parts for parts in modules.values())
    if n_wanted != len(convolutions):
        raise SourceError(f"the graph has {len(convolutions)} convolutions; expected {n_wanted}")
    left = iter(convolutions)
    found: dict[str, Tensor] = {}
    for module, parts in modules.items():
        if "running_var" not in parts:
            convolution = next(left)
            values = {"weight": torch.from_numpy(convolution.kernel)}
        else:
            n_channels = len(convolution.kernel)
            values = {
                "weight": torch.ones(n_channels),
                "running_mean": torch.zeros(n_channels),
                "running_var": torch.full((n_channels,), 1 - eps),
                "num_batches_tracked": torch.tensor(0),
            }
        if "bias" in parts:
            if convolution.bias is None:
                raise SourceError(f"{convolution.name} has no bias for {module}")
            values["bias"] = torch.from_numpy(convolution.bias)
        found |= {f"{module}.{part}": values[part] for part in parts}
    return found

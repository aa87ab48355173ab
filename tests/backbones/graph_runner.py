"""Graph models of TensorFlow.js, run operation by operation: what a converter is held to."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def node(op: str, name: str, *inputs: str, stride: int = 1, relu: bool = False) -> dict[str, Any]:
    """A convolution with its bias, as a graph writes it down."""

    def text(words: str) -> str:
        return base64.b64encode(words.encode()).decode()

    fused = ["BiasAdd", *(["Relu"] if relu else [])]
    return {
        "op": op,
        "name": name,
        "input": list(inputs),
        "attr": {
            "padding": {"s": text("SAME")},
            "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
            "fused_ops": {"list": {"s": [text(each) for each in fused]}},
        },
    }


def run_graph(model: dict[str, Any], weights: bytes, image: Tensor, output: str) -> Tensor:
    """What an operation of a graph gives for a picture.

    Args:
        model: the JSON document; float16 or float32 weights.
        image: (1, 3, h, w), as the graph's placeholder wants it, but for the order of the axes.
        output: name of the operation.
    """
    arrays, start = {}, 0
    for entry in (entry for group in model["weightsManifest"] for entry in group["weights"]):
        kind = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}
        kind = kind[entry.get("quantization", entry)["dtype"]]
        size = int(np.prod(entry["shape"], dtype=int)) * np.dtype(kind).itemsize
        values = np.frombuffer(weights[start : start + size], kind).reshape(entry["shape"])
        arrays[entry["name"]] = torch.from_numpy(values.astype(np.float32))
        # Of a hard swish, without the rounding to float16.
        if not entry["shape"] and abs(float(values) - 1 / 6) < 1e-3:
            arrays[entry["name"]] = torch.tensor(1 / 6)
        start += size
    nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
    known = arrays | {n: image for n, node in nodes.items() if node["op"] == "Placeholder"}

    def value(name: str) -> Tensor:
        name = name.partition(":")[0]
        if name not in known:
            known[name] = _run(nodes[name], *map(value, nodes[name]["input"]))
        return known[name]

    return value(output)


def _run(node: dict[str, Any], *inputs: Tensor) -> Tensor:
    def a_channel(values: Tensor) -> Tensor:
        return values.view(-1, 1, 1) if values.dim() == 1 else values

    simple = {
        "Add": lambda: inputs[0] + a_channel(inputs[1]),
        "Mul": lambda: inputs[0] * a_channel(inputs[1]),
        "Minimum": lambda: torch.minimum(*inputs),
        "Maximum": lambda: torch.maximum(*inputs),
        "Relu": lambda: inputs[0].relu(),
        "Relu6": lambda: inputs[0].clamp(0, 6),
        "Mean": lambda: inputs[0].mean(dim=(2, 3), keepdim=True),
    }
    return simple[node["op"]]() if node["op"] in simple else _convolve(node, *inputs)


def _convolve(
    node: dict[str, Any], values: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Tensor:
    assert base64.b64decode(node["attr"]["padding"]["s"]) == b"SAME"
    is_depthwise = "Depthwise" in node["op"]
    kernel = kernel.permute((2, 3, 0, 1) if is_depthwise else (3, 2, 0, 1))
    stride = int(node["attr"]["strides"]["list"]["i"][1])
    side, size = values.shape[-1], kernel.shape[-1]
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    edges = (total // 2, total - total // 2) * 2
    result = nn.functional.conv2d(
        nn.functional.pad(values, edges),
        kernel,
        bias,
        stride,
        groups=values.shape[1] if is_depthwise else 1,
    )
    fused = node["attr"].get("fused_ops", {"list": {}})["list"].get("s", [])
    fused = [base64.b64decode(each) for each in fused]
    return result.relu() if fused == [b"BiasAdd", b"Relu"] else result

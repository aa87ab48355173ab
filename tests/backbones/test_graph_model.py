"""A tiny graph model made by hand, and what is not one."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.backbones.graph_model import as_state, convolutions_of
from pipelines.errors import SourceError
from tests.backbones.graph_runner import node, run_graph

SCOPES = ("net/",)
#: By name: values as they are stored, and how.
ARRAYS = {
    "net/a/kernel": (np.arange(3 * 3 * 3 * 4).reshape(3, 3, 3, 4) / 64, "float16"),
    "net/a/bias": (np.array([1.0, -2.0, 3.0, 0.5]), "float16"),
    "net/b/kernel": (np.arange(3 * 3 * 4).reshape(3, 3, 4, 1) / 8 - 2, "float32"),
    "net/b/bias": (np.array([0.0, 1.0, 2.0, 3.0]), "float16"),
    "net/c/kernel": (np.arange(4 * 2).reshape(1, 1, 4, 2) / 4, "float16"),
    "net/c/bias": (np.array([7.0, 8.0]), "float16"),
    "head/kernel": (np.ones((1, 1, 4, 5)), "float16"),
    "head/bias": (np.ones(5), "float16"),
    "axes": (np.array([1, 2]), "int32"),
}
_STORED = {"float16": "<f2", "float32": "<f4", "int32": "<i4"}


def entry(name: str) -> dict[str, Any]:
    values, kind = ARRAYS[name]
    if kind == "float16":
        # Stored in two bytes, meant as four.
        quantization = {"dtype": kind, "original_dtype": "float32"}
        return {
            "name": name,
            "shape": values.shape,
            "dtype": "float32",
            "quantization": quantization,
        }
    return {"name": name, "shape": values.shape, "dtype": kind}


#: The nodes stand in another order than they run in; a second branch reads the first convolution.
MODEL = {
    "format": "graph-model",
    "modelTopology": {
        "node": [
            node("_FusedConv2D", "net/c", "net/b:0", "net/c/kernel", "net/c/bias", relu=True),
            node("_FusedConv2D", "head/d", "net/a", "head/kernel", "head/bias"),
            node("FusedDepthwiseConv2dNative", "net/b", "net/a", "net/b/kernel", "net/b/bias"),
            node("_FusedConv2D", "net/a", "image", "net/a/kernel", "net/a/bias", stride=2),
            {"name": "image", "op": "Placeholder"},
            *({"name": name, "op": "Const"} for name in ARRAYS),
        ]
    },
    "weightsManifest": [{"paths": ["net.bin"], "weights": [entry(name) for name in ARRAYS]}],
}
WEIGHTS = b"".join(values.astype(_STORED[kind]).tobytes() for values, kind in ARRAYS.values())
DOCUMENT = json.dumps(MODEL).encode()


class Net(nn.Sequential):
    """The graph's trunk as a network of torch; only the last convolution has a bias of its own."""

    def __init__(self) -> None:
        eps = 1e-3
        super().__init__(
            nn.Sequential(nn.Conv2d(3, 4, 3, 2, bias=False), nn.BatchNorm2d(4, eps)),
            nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1, groups=4, bias=False), nn.BatchNorm2d(4, eps)),
            nn.Sequential(nn.Conv2d(4, 2, 1), nn.ReLU()),
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        # As TensorFlow pads a stride of 2.
        return super().forward(nn.functional.pad(pixels, (0, 1, 0, 1)))


def test_convolutions_come_in_the_order_in_which_they_run_without_those_outside():
    found = convolutions_of(DOCUMENT, WEIGHTS, SCOPES)
    assert [each.name for each in found] == ["net/a", "net/b", "net/c"]
    assert [each.kernel.shape for each in found] == [(4, 3, 3, 3), (4, 1, 3, 3), (2, 4, 1, 1)]
    # Written as (h, w, in, out): the value at h 1, w 2, in 0, out 3.
    assert found[0].kernel[3, 0, 1, 2] == ARRAYS["net/a/kernel"][0][1, 2, 0, 3]
    assert found[1].kernel[2, 0, 0, 1] == ARRAYS["net/b/kernel"][0][0, 1, 2, 0]
    assert found[2].bias.tolist() == [7.0, 8.0]
    assert {each.kernel.dtype for each in found} == {np.dtype("float32")}


def test_network_with_these_tensors_computes_what_the_graph_computes():
    net = Net().eval()
    state = as_state(convolutions_of(DOCUMENT, WEIGHTS, SCOPES), list(net.state_dict()), 1e-3)
    net.load_state_dict(state)
    pixels = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        got = net(pixels)
    expected = run_graph(MODEL, WEIGHTS, pixels, "net/c")
    assert got.shape == (1, 2, 4, 4)
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_norms_that_a_converter_left_behind_a_convolution_are_folded_into_it():
    """A factor and a summand a channel; not what two operations read, nor one number for all."""
    arrays = {name: each for name, each in ARRAYS.items() if name != "net/b/bias"} | {
        "factor": (np.array([2.0, -1.0, 0.5, 3.0]), "float32"),
        "summand": (np.array([1.0, 2.0, -3.0, 0.0]), "float32"),
        "most": (np.array(6.0), "float32"),
    }
    data = b"".join(values.astype(_STORED[kind]).tobytes() for values, kind in arrays.values())
    plain = node("DepthwiseConv2dNative", "net/b", "net/a", "net/b/kernel")
    del plain["attr"]["fused_ops"]
    simple = [("Mul", "b/mul", "net/b", "factor"), ("Add", "b/add", "b/mul", "summand")]
    simple += [("Minimum", "b/min", "b/add", "most")]
    document = {
        "modelTopology": {
            "node": [
                *({"op": op, "name": name, "input": inputs} for op, name, *inputs in simple),
                node("_FusedConv2D", "net/c", "b/min", "net/c/kernel", "net/c/bias", relu=True),
                plain,
                *MODEL["modelTopology"]["node"][3:],
                *({"name": name, "op": "Const"} for name in ("factor", "summand", "most")),
            ]
        },
        "weightsManifest": [
            {
                "weights": [
                    entry(name)
                    if name in ARRAYS
                    else {"name": name, "shape": values.shape, "dtype": kind}
                    for name, (values, kind) in arrays.items()
                ]
            }
        ],
    }
    net = Net().eval()
    found = convolutions_of(json.dumps(document).encode(), data, SCOPES)
    net.load_state_dict(as_state(found, list(net.state_dict()), 1e-3))
    pixels = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        got = net[1](net[0](nn.functional.pad(pixels, (0, 1, 0, 1))))
    expected = run_graph(document, data, pixels, "b/add")
    assert float(expected.std()) > 0.1
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    blue_first = found[0].with_inputs_reversed()
    assert blue_first.kernel[3, 0, 1, 2] == found[0].kernel[3, 2, 1, 2]


def changed(path: list[Any], value: object) -> bytes:
    model = copy.deepcopy(MODEL)
    place: Any = model
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(model).encode()


NODES = ["modelTopology", "node"]


@pytest.mark.parametrize(
    ("document", "weights", "message"),
    [
        (DOCUMENT, WEIGHTS[:-1], "no graph model"),
        (DOCUMENT, WEIGHTS + b"x", "bytes of weights, the file"),
        (b"PK", WEIGHTS, "no graph model"),
        (b"[]", WEIGHTS, "no graph model"),
        (b"{}", WEIGHTS, "no graph model .*weightsManifest"),
        (
            changed(["weightsManifest", 0, "weights", 0, "quantization", "dtype"], "uint8"),
            WEIGHTS,
            "weights of type uint8 are not known",
        ),
        # the first convolution reads the last
        (changed([*NODES, 3, "input", 0], "net/c"), WEIGHTS, "no graph model .*[Cc]ycle"),
        # a kernel that is nowhere
        (changed([*NODES, 3, "input", 1], "net/z"), WEIGHTS, "no graph model .*net/z"),
        # two outputs a channel
        (
            changed(["weightsManifest", 0, "weights", 2, "shape"], [3, 3, 2, 2]),
            WEIGHTS,
            "more than one output a channel",
        ),
    ],
)
def test_what_is_no_such_graph_is_refused(document, weights, message):
    with pytest.raises(SourceError, match=message):
        convolutions_of(document, weights, SCOPES)


def test_another_number_of_convolutions_and_a_missing_bias_are_refused():
    names = list(Net().state_dict())
    found = convolutions_of(DOCUMENT, WEIGHTS, ("net/a", "net/b"))
    with pytest.raises(SourceError, match="has 2 convolutions; expected 3"):
        as_state(found, names, 1e-3)
    without = changed([*NODES, 2, "input"], ["net/a", "net/b/kernel"])
    with pytest.raises(SourceError, match=r"net/b has no bias for 1\.1"):
        as_state(convolutions_of(without, WEIGHTS, SCOPES), names, 1e-3)

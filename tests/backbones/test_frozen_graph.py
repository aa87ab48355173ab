"""A tiny frozen graph, its bytes laid out by hand, and what is not one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.backbones.frozen_graph import trunk_of
from pipelines.errors import SourceError

RNG = np.random.default_rng(5)
#: (h, w, in, out), and (h, w, in, 1) of the depthwise one.
ARRAYS = {
    "net/a/weights": RNG.normal(size=(3, 3, 3, 4)),
    "net/a/BatchNorm/gamma": RNG.uniform(0.5, 1.5, 4),
    "net/a/BatchNorm/beta": RNG.normal(size=4),
    "net/a/BatchNorm/moving_mean": RNG.normal(size=4),
    "net/a/BatchNorm/moving_variance": RNG.uniform(0.5, 2, 4),
    "net/b/depthwise_weights": RNG.normal(size=(3, 3, 4, 1)),
    "net/b/BatchNorm/gamma": RNG.uniform(0.5, 1.5, 4),
    "net/b/BatchNorm/beta": RNG.normal(size=4),
    "net/b/BatchNorm/moving_mean": RNG.normal(size=4),
    "net/b/BatchNorm/moving_variance": RNG.uniform(0.5, 2, 4),
    "head/weights": RNG.normal(size=(1, 1, 4, 5)),
}
EPS = (1e-2, 1e-5)


def number(value: int) -> bytes:
    """As protocol buffers write it, seven bits a byte."""
    *more, last = [value >> shift & 127 for shift in range(0, max(1, value.bit_length()), 7)]
    return bytes([*(part | 128 for part in more), last])


def field(key: int, data: bytes) -> bytes:
    return number(key << 3 | 2) + number(len(data)) + data


def constant(name: str, values: np.ndarray, *, is_content: bool = True) -> bytes:
    shape = b"".join(field(2, number(1 << 3) + number(size)) for size in values.shape)
    # dtype 1 is float32; content, or packed floats.
    data = values.astype("<f4").tobytes()
    array = number(1 << 3) + number(1) + field(2, shape) + field(4 if is_content else 5, data)
    attr = field(1, b"value") + field(2, field(8, array))
    return field(1, name.encode()) + field(2, b"Const") + field(5, attr)


def graph(**changed: np.ndarray | None) -> bytes:
    arrays = {**ARRAYS, **{key.replace("__", "/"): value for key, value in changed.items()}}
    nodes = [field(1, b"image") + field(2, b"Placeholder")]
    nodes += [
        constant(name, values, is_content=name != "net/a/BatchNorm/beta")
        for name, values in arrays.items()
        if values is not None
    ]
    return b"".join(field(1, node) for node in nodes)


def expected(pixels: np.ndarray) -> np.ndarray:
    """(h, w, 4) of a picture (h, w, 3), from the definitions."""

    def normed(values: np.ndarray, layer: str) -> np.ndarray:
        gamma, beta, mean, variance = (
            ARRAYS[f"net/{layer}/BatchNorm/{part}"]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (values - mean) / np.sqrt(variance + EPS[0]) * gamma + beta

    windows = np.lib.stride_tricks.sliding_window_view
    found = np.einsum("yxcij,ijco->yxo", windows(pixels, (3, 3), (0, 1)), ARRAYS["net/a/weights"])
    found = windows(normed(found, "a"), (3, 3), (0, 1))
    kernel = ARRAYS["net/b/depthwise_weights"][..., 0]
    return normed(np.einsum("yxcij,ijc->yxc", found, kernel), "b")


def test_trunk_of_a_graph_is_the_same_function_in_torch():
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4, EPS[1])),
        *(nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4, EPS[1])),
    ).eval()
    trunk = trunk_of(graph(), ("net/",), EPS)
    network.load_state_dict(dict(zip(network.state_dict(), trunk.values(), strict=True)))
    pixels = RNG.normal(size=(9, 8, 3))
    with torch.inference_mode():
        got = network(torch.from_numpy(pixels.transpose(2, 0, 1)[None]).float())
    assert got[0].permute(1, 2, 0).numpy() == pytest.approx(expected(pixels), abs=1e-4)


@pytest.mark.parametrize(
    ("data", "scopes", "message"),
    [
        (b"no graph", ("net/",), "is no frozen graph"),
        (graph()[:-7], ("net/",), "is no frozen graph"),
        (graph(net__a__BatchNorm__beta=None), ("net/",), "net/a/BatchNorm/beta"),
        (graph(net__a__weights=np.zeros((3, 3))), ("net/",), "is no frozen graph"),
        (graph(), ("other/", "third/"), "begins with other/ or third/"),
        (b"", ("net/",), "begins with net/"),
    ],
)
def test_what_is_no_such_graph_is_refused(data, scopes, message):
    with pytest.raises(SourceError, match=message):
        trunk_of(data, scopes, EPS)

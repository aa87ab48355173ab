"""Costs, held to the figures of the papers and to torch's own counter."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipelines.backbones.cost import (
    cost,
    cost_of,
    separable_multiply_adds,
    separable_share,
    standard_multiply_adds,
)
from pipelines.backbones.spec import all_widths, backbone
from pipelines.errors import ConfigError
from tests.backbones.names import marked

#: Networks without squeeze-and-excite, whose layers the flop counter and the papers count alike.
EVERY = {network.title: network for network in all_widths()}


# -- arithmetic -----------------------------------------------------------------------------------
def test_arithmetic_is_that_of_the_papers_example():
    """M = N = 512, D_F = 14, D_K = 3; the last as printed, with 9.996 px not rounded."""
    assert standard_multiply_adds(3, 512, 512, 14) == 462_422_016
    assert separable_multiply_adds(3, 512, 512, 14) == 52_283_392
    assert separable_multiply_adds(3, 512, 512, 14, alpha=0.75) == 29_578_752
    both = separable_multiply_adds(3, 512, 512, 14, alpha=0.75, rho=0.714)
    assert f"{both:.4f}" == "15079129.4546"


def test_share_is_that_of_the_costs():
    assert separable_share(3, 512) == 521 / 4608
    assert separable_share(3, 512) == pytest.approx(52_283_392 / 462_422_016, rel=1e-12)


# -- networks -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "width", "adds_m", "parameters_m"),
    [
        # Howard et al. 2017, tables 4 and 6; 4866 and 29.3 for full convolutions.
        ("mobilenet_v1", 1.0, 569, 4.2),
        ("mobilenet_v1", 0.75, 325, 2.6),
        ("mobilenet_v1", 0.5, 149, 1.3),
        ("mobilenet_v1", 0.25, 41, 0.5),
        ("mobilenet_v1_full_convolutions", 1.0, 4866, 29.3),
        # Sandler et al. 2018, table 4: 300 and 3.4.
        ("mobilenet_v2", 1.0, 300, 3.4),
        # Howard et al. 2019: 217 and 5.4 with the hidden layer of its classifier, counted below.
        ("mobilenet_v3_large_minimal", 1.0, 209, 3.9),
        # Zoph et al. 2018.
        ("nasnet_mobile", 1.0, 564, 5.3),
    ],
)
def test_published_totals(name, width, adds_m, parameters_m):
    found = cost(backbone(name, width), 224)
    assert found.multiply_adds / 1e6 == pytest.approx(adds_m, rel=4e-3)
    assert found.parameters / 1e6 == pytest.approx(parameters_m, abs=0.08)


def test_v1_has_28_layers_and_spends_most_on_1x1_convolutions():
    found = cost(backbone("mobilenet_v1"), 224)
    assert len(found.layers) == 28
    adds, parameters = found.by_kind()["1x1 convolution"]
    assert round(100 * adds / found.multiply_adds) == 95
    assert round(100 * parameters / found.parameters) == 75


def test_v2_spans_the_range_of_its_paper():
    """585 M multiply-adds and 1.7 M parameters as stated; 6.9 M are stated, 6.1 M are there."""
    narrow, wide = (cost(backbone("mobilenet_v2", width), 224) for width in (0.35, 1.4))
    assert narrow.parameters / 1e6 == pytest.approx(1.7, abs=0.05)
    assert wide.multiply_adds / 1e6 == pytest.approx(585, rel=6e-3)
    assert wide.parameters / 1e6 == pytest.approx(6.1, abs=0.05)
    small = cost(backbone("mobilenet_v2", 0.35), 96)
    assert small.multiply_adds < 0.21 * narrow.multiply_adds
    assert small.parameters == narrow.parameters


def test_v3s_last_stage_saves_30_m_by_standing_behind_the_pool():
    def last_stage(*layers: nn.Module) -> int:
        with torch.device("meta"):
            network = nn.Sequential(*layers)
        values = torch.empty(1, 160, 7, 7, device="meta")
        with FlopCounterMode(display=False) as counter:
            network(values)
        return counter.get_total_flops() // 2

    with torch.device("meta"):
        before = last_stage(
            nn.Conv2d(160, 960, 1),
            nn.Conv2d(960, 960, 3, padding=1, groups=960),
            nn.Conv2d(960, 320, 1),
            nn.Conv2d(320, 1280, 1),
        )
        after = last_stage(nn.Conv2d(160, 960, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 1280, 1))
    assert 30e6 < before - after < 35e6


#: Input (side and channels), kernel, expansion, output, squeeze-and-excite, stride: one row a
#: block, as in tables 1 and 2 of Howard et al. 2019.
V3_LARGE = [
    (112, 16, 3, 16, 16, False, 1),
    (112, 16, 3, 64, 24, False, 2),
    (56, 24, 3, 72, 24, False, 1),
    (56, 24, 5, 72, 40, True, 2),
    (28, 40, 5, 120, 40, True, 1),
    (28, 40, 5, 120, 40, True, 1),
    (28, 40, 3, 240, 80, False, 2),
    (14, 80, 3, 200, 80, False, 1),
    (14, 80, 3, 184, 80, False, 1),
    (14, 80, 3, 184, 80, False, 1),
    (14, 80, 3, 480, 112, True, 1),
    (14, 112, 3, 672, 112, True, 1),
    (14, 112, 5, 672, 160, True, 2),
    (7, 160, 5, 960, 160, True, 1),
    (7, 160, 5, 960, 160, True, 1),
]
V3_SMALL = [
    (112, 16, 3, 16, 16, True, 2),
    (56, 16, 3, 72, 24, False, 2),
    (28, 24, 3, 88, 24, False, 1),
    (28, 24, 5, 96, 40, True, 2),
    (14, 40, 5, 240, 40, True, 1),
    (14, 40, 5, 240, 40, True, 1),
    (14, 40, 5, 120, 48, True, 1),
    (14, 48, 5, 144, 48, True, 1),
    (14, 48, 5, 288, 96, True, 2),
    (7, 96, 5, 576, 96, True, 1),
    (7, 96, 5, 576, 96, True, 1),
]


@pytest.mark.parametrize(
    ("name", "table"), [("mobilenet_v3_large", V3_LARGE), ("mobilenet_v3_small", V3_SMALL)]
)
def test_v3_is_built_as_its_table_says(name, table):
    found = cost(backbone(name), 224)
    for index, row in enumerate(table, start=1):
        layers = [layer for layer in found.layers if layer.name.startswith(f"{index}.")]
        side, n_in, kernel, expansion, n_out, is_squeezed, stride = row
        depthwise = next(layer for layer in layers if layer.kind == "depthwise")
        assert layers[0].input == (n_in, side, side)
        assert layers[-1].output[0] == n_out
        assert (depthwise.kernel, depthwise.stride) == ((kernel, kernel), stride)
        assert depthwise.input[0] == expansion
        assert any(layer.output[1:] == (1, 1) for layer in layers) == is_squeezed
    assert found.layers[0].output == (16, 112, 112)
    assert len(backbone(name).build()) == len(table) + 2


@pytest.mark.parametrize("title", [pytest.param(title, marks=marked(title)) for title in EVERY])
def test_torchs_own_counter_agrees(title):
    network = EVERY[title]
    with torch.device("meta"):
        blocks = nn.Sequential(*network.build()).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        blocks(torch.empty(1, 3, 224, 224, device="meta"))
    assert 2 * cost(network, 224, n_classes=None).multiply_adds == counter.get_total_flops()


# -- memory ---------------------------------------------------------------------------------------
def meta(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers).to("meta").eval()


@pytest.mark.parametrize(
    ("network", "held"),
    [
        # Picture and result.
        (meta(nn.Conv2d(3, 8, 1)), [11 * 64]),
        # An activation and a norm stand where the convolution's result stands.
        (meta(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU()), [11 * 64]),
        # The picture is gone by the second.
        (meta(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)), [11 * 64, 10 * 64]),
    ],
)
def test_memory_is_what_is_still_to_be_read(network, held):
    assert cost_of(network, 8).memory == tuple(held)


def test_a_shortcut_is_held_until_it_is_added():
    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Conv2d(3, 30, 1), nn.Conv2d(30, 3, 1)

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return values + self.narrow(self.wide(values))

    found = cost_of(meta(Shortcut()), 8)
    # Picture and expansion; these and the projection; picture, projection and sum.
    assert found.memory == (33 * 64, 36 * 64, 9 * 64)
    assert found.peak_bytes("float32") == 4 * found.peak_bytes("int8") == 4 * 36 * 64


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_padding_is_no_copy_that_must_be_held(name):
    """As TensorFlow pads, a picture's border is made by an operation of its own."""
    network = backbone(name, 0.5)
    padded, plain = (
        nn.Sequential(*network.spec.build(0.5, padding)).to("meta").eval()
        for padding in ("same", "symmetric")
    )
    assert any("SameConv2d" in str(type(module)) for module in padded.modules())
    assert cost_of(padded, 224).memory == cost_of(plain, 224).memory


def test_v2s_thin_tensors_are_a_quarter_of_v1s():
    """Sandler et al. 2018, table 3: 1600 K and 400 K in 16 bits; 600 K for the first ShuffleNet.

    That is the largest tensor that must stand in memory as a whole, where expansions and the layers
    before the first block are computed piece by piece.
    """
    v1, v2 = (backbone(name).shapes(224) for name in ("mobilenet_v1", "mobilenet_v2"))
    shuffled = backbone("shufflenet_v2", 2.0).shapes(224)
    largest = [
        max(channels * height * width for _, channels, height, width in shapes[1:])
        for shapes in (v1, v2, shuffled)
    ]
    assert largest == [64 * 112 * 112, 16 * 112 * 112, 244 * 28 * 28]
    assert [round(2 * each / 1000) for each in largest] == [1606, 401, 383]


def test_held_layer_by_layer_v2_needs_more_than_v1():
    """The other side of the same: a plain runtime holds an expansion whole, with what it reads."""
    v1, v2 = (cost(backbone(name), 224) for name in ("mobilenet_v1", "mobilenet_v2"))
    # From 32 to 64 channels at 112 px; the expansion to 96 at 112 px, and what is made of it.
    assert v1.peak_bytes("int8") == (32 + 64) * 112**2
    assert v2.peak_bytes("int8") == 96 * 112**2 + 96 * 56**2


def test_a_network_that_is_too_deep_for_the_input_is_one_line():
    with pytest.raises(ConfigError, match=r"image_px: alexnet is too deep for 32 px") as caught:
        cost(backbone("alexnet"), 32)
    assert "\n" not in str(caught.value)


def test_a_width_that_the_paper_does_not_have_is_one_line():
    expected = r"train\.width: mobilenet_v1 has no width 0\.6\. Expected one of 0\.25, 0\.5"
    with pytest.raises(ConfigError, match=expected):
        backbone("mobilenet_v1", 0.6)

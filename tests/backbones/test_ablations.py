"""What the papers take away from a network, and nothing else with it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.backbones.cost import cost, standard_multiply_adds
from pipelines.backbones.spec import Backbone, all_widths, backbone, backbones

#: By name, the whole network.
WHOLE = {
    "mobilenet_v1_full_convolutions": "mobilenet_v1",
    "mobilenet_v2_relu6_bottlenecks": "mobilenet_v2",
    "mobilenet_v2_no_shortcuts": "mobilenet_v2",
    "mobilenet_v2_expanded_shortcuts": "mobilenet_v2",
    "mobilenet_v3_large_relu": "mobilenet_v3_large",
    "mobilenet_v3_large_no_squeeze": "mobilenet_v3_large",
}
#: ReLU6 is a hardtanh to torch; a squeeze ends in a hard sigmoid.
COUNTED = {
    "hardtanh": "relu6",
    "relu": "relu",
    "hardswish": "hardswish",
    "hardsigmoid": "squeeze",
    "convolution": "convolution",
}


class _Run(TorchDispatchMode):
    """Counts operators, and notes the channels of each sum."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.sums: list[int] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        if name in COUNTED:
            self.counts[COUNTED[name]] += 1
        if name == "convolution" and args[8] > 1:
            self.counts["depthwise"] += 1
        result = func(*args, **(kwargs or {}))
        if name == "add" and len(args[0].shape) == 4:
            self.sums.append(result.shape[1])
        return result


def run_of(network: Backbone) -> _Run:
    with torch.device("meta"):
        blocks = nn.Sequential(*network.build()).eval()
    with torch.no_grad(), _Run() as run:
        blocks(torch.empty(1, 3, 64, 64, device="meta"))
    return run


#: Counted by hand in table 2 of Sandler et al. 2018, table 1 of Howard et al. 2017 and table 1 of
#: Howard et al. 2019.
V2 = {"convolution": 52, "depthwise": 17}
SHORTCUTS = [24, 32, 32, 64, 64, 64, 96, 96, 160, 160]
#: A shortcut between expansions joins what is six times as wide.
EXPANDED = [6 * channels for channels in SHORTCUTS]
V3_SUMS = [16, 24, 40, 40, 80, 80, 80, 112, 160, 160]


@pytest.mark.parametrize(
    ("name", "counts", "sums"),
    [
        ("mobilenet_v1", {"convolution": 27, "depthwise": 13, "relu6": 27}, []),
        ("mobilenet_v1_full_convolutions", {"convolution": 14, "relu6": 14}, []),
        # One behind the stem, one in the first block, two in each other, one behind the last.
        ("mobilenet_v2", V2 | {"relu6": 1 + 1 + 2 * 16 + 1}, SHORTCUTS),
        ("mobilenet_v2_relu6_bottlenecks", V2 | {"relu6": 35 + 17}, SHORTCUTS),
        ("mobilenet_v2_no_shortcuts", V2 | {"relu6": 35}, []),
        ("mobilenet_v2_expanded_shortcuts", V2 | {"relu6": 35}, EXPANDED),
        # Nine blocks of hard-swish, stem and last layer; six of ReLU, whose first does not expand,
        # and one in each of eight squeezes, which have two convolutions.
        (
            "mobilenet_v3_large",
            {"convolution": 62, "depthwise": 15, "hardswish": 20, "relu": 11 + 8, "squeeze": 8},
            V3_SUMS,
        ),
        (
            "mobilenet_v3_large_relu",
            {"convolution": 62, "depthwise": 15, "relu": 20 + 11 + 8, "squeeze": 8},
            V3_SUMS,
        ),
        (
            "mobilenet_v3_large_no_squeeze",
            {"convolution": 62 - 16, "depthwise": 15, "hardswish": 20, "relu": 11},
            V3_SUMS,
        ),
    ],
)
def test_what_runs_is_what_the_name_says(name, counts, sums):
    run = run_of(backbone(name))
    assert dict(run.counts) == counts
    assert run.sums == sums


@pytest.mark.parametrize("name", WHOLE)
def test_it_sees_what_the_whole_network_sees_at_each_of_its_widths(name):
    whole = backbones()[WHOLE[name]].widths
    own = backbones()[name].widths
    assert own.keys() <= whole.keys()
    assert {0.75, 1.0} <= own.keys()
    for width, pretrained in own.items():
        assert pretrained.input == whole[width].input
        assert not pretrained.weights, "nobody publishes weights of an ablation"


# -- costs ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", [name for name in WHOLE if "_v2_" in name or name.endswith("relu")]
)
def test_without_a_layer_less_it_costs_what_the_whole_network_costs(name):
    for network in all_widths():
        if network.spec.name == name:
            own, whole = (
                cost(each, 224) for each in (network, backbone(WHOLE[name], network.width))
            )
            assert own.multiply_adds == whole.multiply_adds
            assert own.parameters == whole.parameters
            assert own.norm_parameters == whole.norm_parameters


def test_shortcuts_between_expansions_are_held_and_missing_ones_are_not():
    names = ("mobilenet_v2_no_shortcuts", "mobilenet_v2", "mobilenet_v2_expanded_shortcuts")
    none, own, expanded = (sum(cost(backbone(name), 224).memory) for name in names)
    assert none < own < expanded


def test_full_convolutions_cost_what_their_table_says():
    """Channels in and out, and the output's side, of each layer behind the stem."""
    rows = [
        *((32, 64, 112), (64, 128, 56), (128, 128, 56), (128, 256, 28), (256, 256, 28)),
        *((256, 512, 14), *[(512, 512, 14)] * 5, (512, 1024, 7), (1024, 1024, 7)),
    ]
    found = cost(backbone("mobilenet_v1_full_convolutions"), 224)
    classifier = 1024 * 1000
    stem = 27 * 32 * 112**2
    assert found.multiply_adds == classifier + stem + sum(
        standard_multiply_adds(3, n_in, n_out, side) for n_in, n_out, side in rows
    )
    weights = 27 * 32 + sum(9 * n_in * n_out for n_in, n_out, _ in rows)
    assert found.parameters == classifier + 1000 + weights


def test_squeeze_and_excite_costs_what_its_two_layers_do():
    """Expansion and squeeze, which is a quarter of it, to the next multiple of 8."""
    rows = [(72, 24), *[(120, 32)] * 2, (480, 120), *[(672, 168)] * 2, *[(960, 240)] * 2]
    whole, own = (
        cost(backbone(name), 224)
        for name in ("mobilenet_v3_large", "mobilenet_v3_large_no_squeeze")
    )
    assert whole.multiply_adds - own.multiply_adds == sum(2 * e * s for e, s in rows)
    assert whole.parameters - own.parameters == sum(2 * e * s + e + s for e, s in rows)

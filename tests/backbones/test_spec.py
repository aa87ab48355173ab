from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from pipelines.backbones import spec
from pipelines.backbones.spec import (
    Backbone,
    all_widths,
    backbone,
    backbones,
    timm,
    torchvision_models,
)
from pipelines.backbones.weights import TorchHub
from pipelines.errors import ConfigError
from tests.backbones.toy_family import toy

#: Published totals of torchvision's tables, less their classifiers (VGG: 123,642,856).
N_PARAMETERS = {
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 2_542_856 - (576 * 1024 + 1024) - (1024 * 1000 + 1000),
    "mobilenet_v3_large": 5_483_032 - (960 * 1280 + 1280) - (1280 * 1000 + 1000),
    "mnasnet_b1": 4_383_312 - (1280 * 1000 + 1000),
    "shufflenet_v2": 2_278_604 - (1024 * 1000 + 1000),
    "resnet18": 11_689_512 - (512 * 1000 + 1000),
    "resnet50": 25_557_032 - (2048 * 1000 + 1000),
    "googlenet": 6_624_904 - (1024 * 1000 + 1000),
    "squeezenet": 1_235_496 - (512 * 1000 + 1000),
    "vgg16": 138_357_544 - 123_642_856,
    "vgg19": 143_667_240 - 123_642_856,
}


@pytest.mark.parametrize("name", N_PARAMETERS)
def test_backbone_has_the_published_parameters(name):
    blocks = nn.ModuleList(backbone(name).build())
    assert sum(p.numel() for p in blocks.parameters()) == N_PARAMETERS[name]


FROM_TORCHVISION = [
    pytest.param(network, provider.builder, id=network.title)
    for network in all_widths()
    for provider in network.weights
    if isinstance(provider, TorchHub)
]


@pytest.mark.parametrize(("network", "builder"), FROM_TORCHVISION)
def test_tensors_stand_in_the_order_of_torchvisions_network(network, builder):
    with torch.device("meta"):
        whole = getattr(torchvision_models(), builder)().state_dict()
        ours = nn.ModuleList(network.build()).state_dict()
    # Shapes alone would let two of one kind change places.
    kinds = [(tensor.shape, name.rpartition(".")[2]) for name, tensor in ours.items()]
    theirs = [(tensor.shape, name.rpartition(".")[2]) for name, tensor in whole.items()]
    assert kinds == theirs[: len(kinds)]


@pytest.mark.parametrize("name", ["", "MobileNet_V2", "resnet34", "mobilenet_v2 "])
def test_unknown_backbone_is_refused_with_those_there_are(name):
    with pytest.raises(ConfigError, match=r"train\.backbone: there is no backbone") as caught:
        backbone(name)
    for known in backbones():
        assert known in str(caught.value)


#: By ours, the same network of timm, and strides that only timm sees: before a stem's pool, at the
#: input, behind the last pool.
TIMM = {
    ("efficientnet_lite0", 1.0): ("tf_efficientnet_lite0", set()),
    ("mnasnet_a1", 0.5): ("semnasnet_050", set()),
    ("mnasnet_a1", 0.75): ("semnasnet_075", set()),
    ("mnasnet_a1", 1.0): ("semnasnet_100", set()),
    ("mnasnet_a1", 1.4): ("semnasnet_140", set()),
    ("mnasnet_b1", 0.5): ("mnasnet_050", set()),
    ("mnasnet_b1", 0.75): ("mnasnet_075", set()),
    ("mnasnet_b1", 1.0): ("mnasnet_100", set()),
    ("mobilenet_v1", 1.0): ("mobilenetv1_100", set()),
    ("mobilenet_v2", 0.35): ("mobilenetv2_035", set()),
    ("mobilenet_v2", 0.5): ("mobilenetv2_050", set()),
    ("mobilenet_v2", 0.75): ("mobilenetv2_075", set()),
    ("mobilenet_v2", 1.0): ("mobilenetv2_100", set()),
    ("mobilenet_v2", 1.4): ("mobilenetv2_140", set()),
    ("mobilenet_v3_large", 0.75): ("mobilenetv3_large_075", set()),
    ("mobilenet_v3_large", 1.0): ("mobilenetv3_large_100", set()),
    ("mobilenet_v3_large_minimal", 1.0): ("tf_mobilenetv3_large_minimal_100", set()),
    ("mobilenet_v3_small", 0.75): ("mobilenetv3_small_075", set()),
    ("mobilenet_v3_small", 1.0): ("mobilenetv3_small_100", set()),
    ("mobilenet_v4_conv_medium", 1.0): ("mobilenetv4_conv_medium", set()),
    ("mobilenet_v4_conv_small", 1.0): ("mobilenetv4_conv_small", set()),
    ("resnet18", 1.0): ("resnet18", {2}),
    ("resnet50", 1.0): ("resnet50", {2}),
    ("vgg16", 1.0): ("vgg16", {1, 32}),
    ("vgg19", 1.0): ("vgg19", {1, 32}),
    ("xception", 1.0): ("legacy_xception", set()),
}


@pytest.mark.parametrize(("name", "width"), TIMM)
def test_taps_are_those_of_timms_feature_info(name, width):
    model, only_timms = TIMM[name, width]
    info = timm().create_model(model, features_only=True, pretrained=False).feature_info
    expected = dict(zip(info.reduction(), info.channels(), strict=True))
    network = backbone(name, width)
    got = {stride: tap.channels for stride, tap in network.taps.items()}
    if name.startswith(("mobilenet_v3", "mobilenet_v4")):
        # timm counts the 1x1 convolution before the pool, the block behind our last tap.
        behind = network.shapes(network.input.px)[network.taps[32].block + 1][1]
        assert expected.pop(32) == behind > got.pop(32)
    assert expected.keys() - got.keys() == only_timms
    assert got == {stride: expected[stride] for stride in got}


@pytest.mark.parametrize("name", backbones())
def test_a_tap_is_the_last_block_of_its_stride_that_has_a_kernel(name):
    spec = backbone(name)
    last = spec.taps[max(spec.taps)].block
    kernels = [
        {m.kernel_size for m in block.modules() if isinstance(m, nn.Conv2d)}
        for block in spec.build()[last:]
    ]
    assert kernels[0] - {(1, 1)}
    assert set().union(*kernels[1:]) <= {(1, 1)}


def test_default_cuts_and_widths_are_those_of_the_released_models():
    released = {
        "mobilenet_v2": (14, 1280),
        "mobilenet_v3_small": (9, 576),
        "mobilenet_v3_large": (13, 960),
        "mnasnet_b1": (12, 1280),
    }
    got = {name: (backbone(name).default_cut, backbone(name).n_features) for name in released}
    assert got == released


def test_what_stands_behind_the_pool_is_no_tap_and_gives_the_width(tmp_path):
    spec = toy(tmp_path).at(1.0)
    assert {s: (t.block, t.channels) for s, t in spec.taps.items()} == {
        2: (0, 8),
        4: (1, 8),
        8: (3, 12),
        16: (5, 16),
        32: (6, 24),
    }
    assert spec.default_cut == 6
    assert spec.n_features == 20


def test_asking_draws_nothing():
    network = Backbone(backbones()["mobilenet_v3_small"], 1.0)
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    assert network.n_features == 576
    assert torch.equal(torch.rand(3), expected)


# -- the door to torchvision and timm -------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "from pipelines.backbones.spec import torchvision_models as door\n"
        "assert door() is door() and door().__name__ == 'torchvision.models'\n"
        "import torch\n"
        "assert door().mobilenet_v2().eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 1000)\n",
        "from pipelines.backbones.spec import timm as door\n"
        "net = door().create_model('mobilenetv2_050', pretrained=False)\n"
        "assert net.num_features == 1280\n",
    ],
    ids=["torchvision", "timm"],
)
def test_libraries_import_through_the_door_in_a_fresh_process(code):
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_operators_are_declared_once():
    torchvision_models()
    declared = list(spec._DECLARED)
    torchvision_models()
    assert declared
    assert declared == spec._DECLARED


def test_a_stride_that_a_network_does_not_reach_is_told():
    assert backbone("mobilenet_v2", 1.0).channels_at([8, 16, 32]) == [32, 96, 320]
    with pytest.raises(ConfigError, match="vgg16 has no maps of stride 32, which the task's head"):
        backbone("vgg16", 1.0).channels_at([16, 32])

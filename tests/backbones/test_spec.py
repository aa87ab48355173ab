from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from pipelines.backbones import spec
from pipelines.backbones.spec import backbone, backbones, timm, torchvision_models
from pipelines.backbones.weights import TorchHub
from pipelines.errors import ConfigError
from tests.backbones.toy_family import toy

#: Published totals of torchvision's tables, less their classifiers.
N_PARAMETERS = {
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 2_542_856 - (576 * 1024 + 1024) - (1024 * 1000 + 1000),
    "mobilenet_v3_large": 5_483_032 - (960 * 1280 + 1280) - (1280 * 1000 + 1000),
    "mnasnet1_0": 4_383_312 - (1280 * 1000 + 1000),
}


@pytest.mark.parametrize("name", N_PARAMETERS)
def test_backbone_has_the_published_parameters(name):
    blocks = nn.ModuleList(backbone(name).build())
    assert sum(p.numel() for p in blocks.parameters()) == N_PARAMETERS[name]


FROM_TORCHVISION = [
    (name, provider.prefix)
    for name, entry in backbones().items()
    for provider in entry.weights
    if isinstance(provider, TorchHub)
]


@pytest.mark.parametrize(("name", "prefix"), FROM_TORCHVISION)
def test_names_are_those_of_torchvisions_state_dict(name, prefix):
    whole = getattr(torchvision_models(), name)().state_dict()
    names = nn.ModuleList(backbone(name).build()).state_dict()
    assert all(whole[f"{prefix}.{key}"].shape == value.shape for key, value in names.items())


@pytest.mark.parametrize("name", ["", "MobileNet_V2", "resnet50", "mobilenet_v2 "])
def test_unknown_backbone_is_refused_with_those_there_are(name):
    with pytest.raises(ConfigError, match=r"train\.backbone: there is no backbone") as caught:
        backbone(name)
    for known in backbones():
        assert known in str(caught.value)


#: By ours, the same network of timm.
TIMM = {
    "mobilenet_v2": "mobilenetv2_100",
    "mobilenet_v3_small": "mobilenetv3_small_100",
    "mobilenet_v3_large": "mobilenetv3_large_100",
    "mnasnet1_0": "mnasnet_100",
}


@pytest.mark.parametrize("name", TIMM)
def test_taps_are_those_of_timms_feature_info(name):
    info = timm().create_model(TIMM[name], features_only=True, pretrained=False).feature_info
    expected = dict(zip(info.reduction(), info.channels(), strict=True))
    asked = backbone(name)
    got = {stride: tap.channels for stride, tap in asked.taps.items()}
    if name.startswith("mobilenet_v3"):
        # timm counts the 1x1 convolution before the pool.
        assert expected.pop(32) == asked.n_features == 6 * got.pop(32)
    assert got == expected


@pytest.mark.parametrize("name", backbones())
def test_a_tap_is_the_last_block_of_its_stride_that_has_a_kernel(name):
    asked = backbone(name)
    blocks = asked.build()
    behind = blocks[asked.taps[32].block + 1 :]
    assert behind
    for block in behind:
        kernels = [m.kernel_size for m in block.modules() if isinstance(m, nn.Conv2d)]
        assert set(kernels) <= {(1, 1)}


def test_default_cuts_and_widths_are_those_of_the_released_models():
    released = {
        "mobilenet_v2": (14, 1280),
        "mobilenet_v3_small": (9, 576),
        "mobilenet_v3_large": (13, 960),
        "mnasnet1_0": (12, 1280),
    }
    got = {name: (backbone(name).default_cut, backbone(name).n_features) for name in released}
    assert got == released


def test_what_stands_behind_the_pool_is_no_tap_and_gives_the_width(tmp_path):
    asked = toy(tmp_path)
    assert {s: (t.block, t.channels) for s, t in asked.taps.items()} == {
        2: (0, 8),
        4: (1, 8),
        8: (3, 12),
        16: (5, 16),
        32: (6, 24),
    }
    assert asked.default_cut == 6
    assert asked.n_features == 20


def test_asking_draws_nothing():
    asked = replace(backbone("mobilenet_v3_small"))
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    assert asked.n_features == 576
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

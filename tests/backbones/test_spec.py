from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from pipelines.backbones.spec import backbone, backbones, timm
from tests.backbones.toy_family import toy

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
    spec = backbone(name)
    got = {stride: tap.channels for stride, tap in spec.taps.items()}
    if name.startswith("mobilenet_v3"):
        # timm counts the 1x1 convolution before the pool.
        assert expected.pop(32) == spec.n_features == 6 * got.pop(32)
    assert got == expected


@pytest.mark.parametrize("name", backbones())
def test_a_tap_is_the_last_block_of_its_stride_that_has_a_kernel(name):
    spec = backbone(name)
    blocks = spec.build()
    behind = blocks[spec.taps[32].block + 1 :]
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
    spec = toy(tmp_path)
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
    spec = replace(backbone("mobilenet_v3_small"))
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    assert spec.n_features == 576
    assert torch.equal(torch.rand(3), expected)

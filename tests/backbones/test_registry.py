from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.registry import BACKBONES, backbone
from pipelines.errors import ConfigError

#: Published totals of torchvision's tables, less their classifiers.
N_PARAMETERS = {
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 2_542_856 - (576 * 1024 + 1024) - (1024 * 1000 + 1000),
    "mobilenet_v3_large": 5_483_032 - (960 * 1280 + 1280) - (1280 * 1000 + 1000),
    "mnasnet1_0": 4_383_312 - (1280 * 1000 + 1000),
}


def test_every_backbone_is_counted_here():
    assert set(N_PARAMETERS) == set(BACKBONES)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_has_the_published_parameters_and_the_width_it_names(name):
    spec = backbone(name)
    blocks = nn.Sequential(*spec.build()).eval()
    assert sum(p.numel() for p in blocks.parameters()) == N_PARAMETERS[name]
    with torch.inference_mode():
        assert blocks(torch.zeros(1, 3, 64, 64)).shape == (1, spec.n_features, 2, 2)


@pytest.mark.parametrize("name", BACKBONES)
def test_default_cut_stands_before_the_step_from_stride_16_to_32(name):
    spec = backbone(name)
    blocks = spec.build()
    trunk = nn.Sequential(*blocks[: spec.default_cut]).eval()
    with torch.inference_mode():
        activations = trunk(torch.zeros(1, 3, 64, 64))
        after = blocks[spec.default_cut].eval()(activations)
    assert activations.shape[2:] == (4, 4)
    # MnasNet's stack, like the others' block, halves the side.
    assert after.shape[2:] == (2, 2)


@pytest.mark.parametrize("name", BACKBONES)
def test_prefix_is_that_of_torchvisions_state_dict(name):
    from pipelines.backbones.registry import torchvision_models

    whole = getattr(torchvision_models(), name)().state_dict()
    names = nn.ModuleList(backbone(name).build()).state_dict()
    prefix = backbone(name).prefix
    assert all(whole[f"{prefix}.{key}"].shape == value.shape for key, value in names.items())


@pytest.mark.parametrize("name", ["", "MobileNet_V2", "resnet50", "mobilenet_v2 "])
def test_unknown_backbone_is_refused_with_those_there_are(name):
    with pytest.raises(ConfigError, match=r"train\.backbone: there is no backbone") as caught:
        backbone(name)
    for known in BACKBONES:
        assert known in str(caught.value)

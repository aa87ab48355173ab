from __future__ import annotations

import pytest
from torch import nn

from pipelines.backbones.spec import backbone, backbones, torchvision_models
from pipelines.backbones.weights import TorchHub
from pipelines.errors import ConfigError

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
    for name, spec in backbones().items()
    for provider in spec.weights
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

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipelines.backbones.spec import all_widths, backbone, backbones, torchvision_models
from pipelines.backbones.weights import TorchHub
from pipelines.errors import ConfigError

#: Published totals of torchvision's tables, less their classifiers.
N_PARAMETERS = {
    "mobilenet_v2": 2_223_872,
    "mobilenet_v3_small": 2_542_856 - (576 * 1024 + 1024) - (1024 * 1000 + 1000),
    "mobilenet_v3_large": 5_483_032 - (960 * 1280 + 1280) - (1280 * 1000 + 1000),
    "mnasnet_b1": 4_383_312 - (1280 * 1000 + 1000),
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


@pytest.mark.parametrize("name", ["", "MobileNet_V2", "resnet101", "mobilenet_v2 "])
def test_unknown_backbone_is_refused_with_those_there_are(name):
    with pytest.raises(ConfigError, match=r"train\.backbone: there is no backbone") as caught:
        backbone(name)
    for known in backbones():
        assert known in str(caught.value)

"""ResNet.

References:
    He et al. 2016, "Deep residual learning for image recognition".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Pretrained
from pipelines.backbones.weights import TorchHub

if TYPE_CHECKING:
    from torch import nn


def _blocks(builder: str) -> list[nn.Module]:
    from torch import nn

    from pipelines.backbones.spec import torchvision_models

    net = getattr(torchvision_models(), builder)()
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
    return [stem, *net.layer1, *net.layer2, *net.layer3, *net.layer4]


resnet18 = BackboneSpec(
    name="resnet18",
    family="resnet",
    build=lambda _, __: _blocks("resnet18"),
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(TorchHub("ResNet18_Weights", "IMAGENET1K_V1", "f37072fd", "resnet18"),)
        )
    },
)

resnet50 = BackboneSpec(
    name="resnet50",
    family="resnet",
    build=lambda _, __: _blocks("resnet50"),
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(TorchHub("ResNet50_Weights", "IMAGENET1K_V2", "11ad3fa6", "resnet50"),)
        )
    },
)

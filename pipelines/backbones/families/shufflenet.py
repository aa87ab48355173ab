"""ShuffleNetV2.

References:
    Ma et al. 2018, "ShuffleNet V2: practical guidelines for efficient CNN architecture design".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Padding, Pretrained, torchvision_models
from pipelines.backbones.weights import TorchHub

if TYPE_CHECKING:
    from torch import nn

#: torchvision's builders by width.
_BUILDERS = {
    0.5: "shufflenet_v2_x0_5",
    1.0: "shufflenet_v2_x1_0",
    1.5: "shufflenet_v2_x1_5",
    2.0: "shufflenet_v2_x2_0",
}


def _build(width: float, _: Padding) -> list[nn.Module]:
    from torch import nn

    net = getattr(torchvision_models(), _BUILDERS[width])()
    stem = nn.Sequential(net.conv1, net.maxpool)
    return [stem, *net.stage2, *net.stage3, *net.stage4, net.conv5]


def _weights(width: float, table: str, sha256: str) -> Pretrained:
    return Pretrained(weights=(TorchHub(table, "IMAGENET1K_V1", sha256, _BUILDERS[width]),))


shufflenet_v2 = BackboneSpec(
    name="shufflenet_v2",
    family="shufflenet",
    build=_build,
    licence="BSD-3-Clause",
    widths={
        1.0: _weights(1.0, "ShuffleNet_V2_X1_0_Weights", "5666bf0f80"),
        0.5: _weights(0.5, "ShuffleNet_V2_X0_5_Weights", "f707e7126e"),
        1.5: _weights(1.5, "ShuffleNet_V2_X1_5_Weights", "3c479a10"),
        2.0: _weights(2.0, "ShuffleNet_V2_X2_0_Weights", "8be3c8ee"),
    },
)

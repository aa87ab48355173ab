"""SqueezeNet and GoogLeNet: rows of modules whose branches are concatenated.

References:
    Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters";
    Szegedy et al. 2015, "Going deeper with convolutions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Padding, Pretrained, torchvision_models
from pipelines.backbones.weights import TorchHub

if TYPE_CHECKING:
    from torch import nn


def _squeezenet(_: float, __: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import row, torchvision_row

    return row(torchvision_row("squeezenet1_1", "features"))


def _googlenet(_: float, __: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import row

    network = torchvision_models().googlenet(aux_logits=False, init_weights=False)
    head = {"avgpool", "dropout", "fc"}
    return row(layer for name, layer in network.named_children() if name not in head)


squeezenet = BackboneSpec(
    name="squeezenet",
    family="squeezenet",
    build=_squeezenet,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(
                TorchHub("SqueezeNet1_1_Weights", "IMAGENET1K_V1", "b8a52dc0", "squeezenet1_1"),
            )
        )
    },
)

googlenet = BackboneSpec(
    name="googlenet",
    family="squeezenet",
    build=_googlenet,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(TorchHub("GoogLeNet_Weights", "IMAGENET1K_V1", "1378be20", "googlenet"),)
        )
    },
)

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
    from torch import nn

    from pipelines.backbones.layers import torchvision_row

    first, relu, *others = torchvision_row("squeezenet1_1", "features")
    return [nn.Sequential(first, relu), *_with_pools(others)]


def _googlenet(_: float, __: Padding) -> list[nn.Module]:
    network = torchvision_models().googlenet(aux_logits=False, init_weights=False)
    head = {"avgpool", "dropout", "fc"}
    return _with_pools([layer for name, layer in network.named_children() if name not in head])


def _with_pools(layers: list[nn.Module]) -> list[nn.Module]:
    """A block a layer, with the pool before it: so a cut lies where pictures are small."""
    from torch import nn

    blocks: list[nn.Module] = []
    pool: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            pool = [layer]
        else:
            blocks.append(nn.Sequential(*pool, layer) if pool else layer)
            pool = []
    return blocks


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

"""VGG and AlexNet, as they were: without batch norms.

References:
    Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image
    recognition"; Krizhevsky 2014, "One weird trick for parallelizing convolutional neural
    networks".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Padding, Pretrained
from pipelines.backbones.weights import TorchHub

if TYPE_CHECKING:
    from torch import nn


def _features(builder: str) -> list[nn.Module]:
    """A block a convolution, with the pool before it: so a cut lies where pictures are small."""
    from torch import nn

    from pipelines.backbones.layers import row, torchvision_row

    layers, last = torchvision_row(builder, "features"), None

    def starts(layer: nn.Module) -> bool:
        nonlocal last
        is_start = isinstance(layer, nn.Conv2d) and not isinstance(last, nn.MaxPool2d)
        last = layer
        return is_start or isinstance(layer, nn.MaxPool2d)

    return row(layers, starts)


def _vgg16(_: float, __: Padding) -> list[nn.Module]:
    return _features("vgg16")


def _vgg19(_: float, __: Padding) -> list[nn.Module]:
    return _features("vgg19")


def _alexnet(_: float, __: Padding) -> list[nn.Module]:
    return _features("alexnet")


vgg16 = BackboneSpec(
    name="vgg16",
    family="vgg",
    build=_vgg16,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(weights=(TorchHub("VGG16_Weights", "IMAGENET1K_V1", "397923af", "vgg16"),))
    },
)

vgg19 = BackboneSpec(
    name="vgg19",
    family="vgg",
    build=_vgg19,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(weights=(TorchHub("VGG19_Weights", "IMAGENET1K_V1", "dcbb9e9d", "vgg19"),))
    },
)

alexnet = BackboneSpec(
    name="alexnet",
    family="vgg",
    build=_alexnet,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(TorchHub("AlexNet_Weights", "IMAGENET1K_V1", "7be5be79", "alexnet"),)
        )
    },
)

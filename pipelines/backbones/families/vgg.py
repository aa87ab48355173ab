"""VGG and AlexNet, as they were: without batch norms.

References:
    Simonyan and Zisserman 2015, "Very deep convolutional networks for large-scale image
    recognition"; Krizhevsky 2014, "One weird trick for parallelizing convolutional neural
    networks".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Pretrained
from pipelines.backbones.weights import TorchHub

if TYPE_CHECKING:
    from torch import nn


def _features(builder: str) -> list[nn.Module]:
    from pipelines.backbones.layers import row, torchvision_row

    return row(torchvision_row(builder, "features"))


vgg16 = BackboneSpec(
    name="vgg16",
    family="vgg",
    build=lambda _, __: _features("vgg16"),
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(weights=(TorchHub("VGG16_Weights", "IMAGENET1K_V1", "397923af", "vgg16"),))
    },
)

vgg19 = BackboneSpec(
    name="vgg19",
    family="vgg",
    build=lambda _, __: _features("vgg19"),
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(weights=(TorchHub("VGG19_Weights", "IMAGENET1K_V1", "dcbb9e9d", "vgg19"),))
    },
)

alexnet = BackboneSpec(
    name="alexnet",
    family="vgg",
    build=lambda _, __: _features("alexnet"),
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(TorchHub("AlexNet_Weights", "IMAGENET1K_V1", "7be5be79", "alexnet"),)
        )
    },
)

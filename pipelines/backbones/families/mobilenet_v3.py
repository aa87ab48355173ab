"""MobileNetV3, and what its paper takes away from it.

torchvision's have a hidden layer of the classifier where timm's have a convolution behind the pool:
it is left out of the first and belongs to the embedding of the others.

References:
    Howard et al. 2019, "Searching for MobileNetV3", tables 1 and 2; "minimalistic" models as of
    TensorFlow's model garden: no squeeze-and-excite, no hard-swish, no 5x5 kernel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Input, Padding, Pretrained
from pipelines.backbones.weights import LocalFile, TimmFile, TorchHub

if TYPE_CHECKING:
    from torch import nn


def _small(width: float, _: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import torchvision_row

    return torchvision_row("mobilenet_v3_small", "features", width_mult=width)


def _large(width: float, _: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import torchvision_row

    return torchvision_row("mobilenet_v3_large", "features", width_mult=width)


def _large_minimal(_: float, __: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import timm_row

    return timm_row("tf_mobilenetv3_large_minimal_100")


def _with_relu(width: float, padding: Padding) -> list[nn.Module]:
    from torch import nn

    from pipelines.backbones.layers import replaced

    return replaced(_large(width, padding), nn.Hardswish, lambda _: nn.ReLU(inplace=True))


def _without_squeeze(width: float, padding: Padding) -> list[nn.Module]:
    from torch import nn
    from torchvision.ops.misc import SqueezeExcitation

    from pipelines.backbones.layers import replaced

    return replaced(_large(width, padding), SqueezeExcitation, lambda _: nn.Identity())


mobilenet_v3_small = BackboneSpec(
    name="mobilenet_v3_small",
    family="mobilenet_v3",
    build=_small,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(
                LocalFile(
                    "mobilenet_v3_small.torchvision-features.safetensors",
                    "33ef51348bdc44fdf54c168650c99d8e863f58a7022b7a2bac5048e7adb78619",
                    "features",
                    "BSD-3-Clause",
                ),
                TorchHub(
                    "MobileNet_V3_Small_Weights", "IMAGENET1K_V1", "047dcff4", "mobilenet_v3_small"
                ),
            )
        ),
        0.75: Pretrained(),
    },
)

mobilenet_v3_large = BackboneSpec(
    name="mobilenet_v3_large",
    family="mobilenet_v3",
    build=_large,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(
                TorchHub(
                    "MobileNet_V3_Large_Weights", "IMAGENET1K_V1", "8738ca79", "mobilenet_v3_large"
                ),
            )
        ),
        0.75: Pretrained(),
    },
)

mobilenet_v3_large_minimal = BackboneSpec(
    name="mobilenet_v3_large_minimal",
    family="mobilenet_v3",
    build=_large_minimal,
    licence="Apache-2.0",
    widths={
        1.0: Pretrained(
            input=Input(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), padding="same"),
            weights=(
                TimmFile(
                    "mobilenet_v3_large_minimal.timm.safetensors",
                    "b5c951c4c6aed9b1dcb9933cc95d0319b27ae64c7e2346ef8ce41d9c99c19203",
                    "tf_mobilenetv3_large_minimal_100",
                    "Apache-2.0",
                ),
            ),
        )
    },
)

mobilenet_v3_large_relu = BackboneSpec(
    name="mobilenet_v3_large_relu",
    family="mobilenet_v3",
    build=_with_relu,
    licence="BSD-3-Clause",
    widths={1.0: Pretrained(), 0.75: Pretrained()},
)

mobilenet_v3_large_no_squeeze = BackboneSpec(
    name="mobilenet_v3_large_no_squeeze",
    family="mobilenet_v3",
    build=_without_squeeze,
    licence="BSD-3-Clause",
    widths={1.0: Pretrained(), 0.75: Pretrained()},
)

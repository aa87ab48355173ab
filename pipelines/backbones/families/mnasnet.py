"""MnasNet: A1 with squeeze-and-excite, B1 without.

References:
    Tan et al. 2019, "MnasNet: platform-aware neural architecture search for mobile".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Input, Padding, Pretrained
from pipelines.backbones.weights import TimmHub, TorchHub

if TYPE_CHECKING:
    from torch import nn

_BICUBIC = Input(interpolation="bicubic")


def _a1(width: float, _: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import timm_row

    return timm_row(f"semnasnet_{100 * width:03.0f}")


def _b1(width: float, _: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import torchvision_row

    return torchvision_row(_B1[width], "layers")


#: torchvision's builders by width.
_B1 = {0.5: "mnasnet0_5", 0.75: "mnasnet0_75", 1.0: "mnasnet1_0", 1.3: "mnasnet1_3"}

mnasnet_a1 = BackboneSpec(
    name="mnasnet_a1",
    family="mnasnet",
    build=_a1,
    licence="Apache-2.0",
    widths={
        1.0: Pretrained(input=_BICUBIC, weights=(TimmHub("semnasnet_100"),)),
        0.5: Pretrained(input=_BICUBIC),
        0.75: Pretrained(input=_BICUBIC, weights=(TimmHub("semnasnet_075"),)),
        1.4: Pretrained(input=_BICUBIC),
    },
)

mnasnet_b1 = BackboneSpec(
    name="mnasnet_b1",
    family="mnasnet",
    build=_b1,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(
                TorchHub("MNASNet1_0_Weights", "IMAGENET1K_V1", "f206786ef8", "mnasnet1_0"),
                TimmHub("mnasnet_100"),
            )
        ),
        0.5: Pretrained(
            weights=(TorchHub("MNASNet0_5_Weights", "IMAGENET1K_V1", "3ffadce67e", "mnasnet0_5"),)
        ),
        0.75: Pretrained(
            weights=(TorchHub("MNASNet0_75_Weights", "IMAGENET1K_V1", "7090bc5f", "mnasnet0_75"),)
        ),
        1.3: Pretrained(
            weights=(TorchHub("MNASNet1_3_Weights", "IMAGENET1K_V1", "a4c69d6f", "mnasnet1_3"),)
        ),
    },
)

"""Xception.

References:
    Chollet 2017, "Xception: deep learning with depthwise separable convolutions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Input, Padding, Pretrained, timm
from pipelines.backbones.weights import TimmHub

if TYPE_CHECKING:
    from torch import nn


def _build(_: float, __: Padding) -> list[nn.Module]:
    from torch import nn

    net = timm().create_model("legacy_xception")
    children = dict(net.named_children())
    bodies = [layer for name, layer in children.items() if name.startswith("block")]
    ends = [
        nn.Sequential(*(children[f"{kind}{number}"] for kind in ("conv", "bn", "act")))
        for number in (1, 2, 3, 4)
    ]
    return [*ends[:2], *bodies, *ends[2:]]


xception = BackboneSpec(
    name="xception",
    family="xception",
    build=_build,
    licence="Apache-2.0",
    widths={
        1.0: Pretrained(
            # Trained on 299 px; ours are multiples of 32.
            input=Input(px=288, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic"),
            weights=(TimmHub("legacy_xception"),),
        )
    },
)

"""Section ``board`` of a task: the networks that `fieldlens board` compares.

No stage of the pipeline takes it, so a change of it re-runs none.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from pipelines.strict_yaml import Strict

Width = Annotated[float, Field(gt=0, le=4, strict=False)]
Side = Annotated[int, Field(ge=32, le=1024, multiple_of=32)]

#: MobileNets whose weights need no hub.
_BACKBONES = MappingProxyType(
    {
        "mobilenet_v1": (1.0,),
        "mobilenet_v2": (0.5, 0.75, 1.0),
        "mobilenet_v3_small": (1.0,),
        "mobilenet_v3_large_minimal": (1.0,),
    }
)


class ReferenceParams(Strict):
    """The network beside which all others are timed, in float32."""

    backbone: str = "mobilenet_v2"
    width: Width = 1.0
    image_px: Side = 224


class BoardParams(Strict):
    """Each backbone at each of its widths and each side is a cell: trained once, tested twice."""

    #: Widths by backbone.
    backbones: dict[str, Annotated[tuple[Width, ...], Field(strict=False, min_length=1)]] = Field(
        default_factory=lambda: dict(_BACKBONES), min_length=1
    )
    #: Sides of the input.
    image_px: tuple[Side, ...] = Field(default=(160, 224), strict=False, min_length=1)
    #: Whether cells train again on train and val, as `train.refit` does: twice the time, and the
    #: bounds of int8 are then tried on images that the network has seen.
    refit: bool = False
    #: Resamples of groups for each bootstrap interval (95 %).
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    reference: ReferenceParams = ReferenceParams()

"""Section ``train.view``: apart, since `prepare` and `audit` see by it too."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.strict_yaml import Strict


class ViewParams(Strict):
    """What every picture has taken away, in training and on the phone (`data.preprocess.View`)."""

    #: One channel, three times: hides whether a file was stored grey or in colour.
    grey: bool = False
    #: Shorter side that every picture is brought to first; hides sizes and sharpness.
    side_px: Annotated[int, Field(ge=16, le=1024)] | None = None
    #: Share of the input's side that is painted grey along each edge.
    border_mask: Annotated[float, Field(ge=0, le=0.45, strict=False)] = 0.0

    @property
    def is_off(self) -> bool:
        """Whether nothing is taken away."""
        return self == ViewParams()

"""Section ``evaluate`` of a task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.card import Slug
from pipelines.strict_yaml import Share, Strict

ChangeFamily = Literal["jpeg", "brightness", "rotation", "flip"]


class EvaluateParams(Strict):
    """How the test split is measured."""

    #: Bins of the expected calibration error.
    calibration_bins: Annotated[int, Field(ge=2)]
    #: Resamples of groups for each bootstrap interval (95 %).
    resamples: Annotated[int, Field(ge=100, le=100_000)]
    #: Label of presentation attacks, e.g. a printed face: at its operating point is measured
    #: how often they pass, and how often what is none is refused (ISO/IEC 30107-3). Null: none.
    attack: Slug | None = None
    #: Largest share of answers that one harmless change may turn; a kind may be left out.
    max_changed: dict[ChangeFamily, Share] = Field(default_factory=dict)

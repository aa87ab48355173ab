"""Section ``gate`` of a task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipelines.strict_yaml import Share, Strict


class Demand(Strict):
    """A bound on one figure of metrics.json."""

    #: Its keys, joined by points; ``served`` stands for the precision that the bundle serves, e.g.
    #: ``served.accuracy``.
    metric: Annotated[str, Field(min_length=1)]
    at_least: Annotated[float | None, Field(allow_inf_nan=False)] = None
    at_most: Annotated[float | None, Field(allow_inf_nan=False)] = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> Demand:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("expected either at_least or at_most")
        return self

    @property
    def bound(self) -> float:
        """What is asked for."""
        bound = self.at_most if self.at_least is None else self.at_least
        assert bound is not None
        return bound

    @property
    def sense(self) -> Literal["at least", "at most"]:
        """On which side of the bound the figure must be; equality is enough."""
        return "at most" if self.at_least is None else "at least"


class GateParams(Strict):
    """What a model must reach on the test split to be released."""

    #: Of a classification, of the served file: these two, and the next three of int8 if it is
    #: served. Null for a task of another kind, which has the list below.
    min_accuracy: Share | None = None
    min_macro_f1: Share | None = None
    min_agreement: Share | None = None
    max_accuracy_drop: Share | None = None
    #: Largest drop of one class's recall from fp32 to int8.
    max_recall_drop: Share | None = None
    max_int8_bytes: Annotated[int, Field(ge=1)]
    #: Further bounds, on any figure; of any kind.
    demands: tuple[Demand, ...] = Field(default=(), strict=False)

    @property
    def named(self) -> dict[str, float]:
        """The bounds that have a name of their own, those that are null left out."""
        return self.model_dump(exclude={"max_int8_bytes", "demands"}, exclude_none=True)

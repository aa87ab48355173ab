"""Section ``audit`` of a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipelines.strict_yaml import Share, Strict


class AuditParams(Strict):
    """How far models that see next to nothing may get before data are called a shortcut."""

    #: Folds of the cross-validation, by group, on train and val together.
    folds: Annotated[int, Field(ge=2, le=20)]
    #: Share of the way from chance to the linear probe at which an audit is called suspicious.
    suspicious_share: Share
    #: The same, at which it is called a shortcut.
    shortcut_share: Share
    #: Why a model is released although its data hold a shortcut; printed with it. Null: it is not.
    accepted: Annotated[str, Field(min_length=10)] | None = None

    @model_validator(mode="after")
    def _bounds_rise(self) -> AuditParams:
        if self.suspicious_share >= self.shortcut_share:
            raise ValueError("suspicious_share must be below shortcut_share")
        return self

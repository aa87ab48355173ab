"""What a bundle says about how far its answers can be trusted.

Read by the predictor, the apps, the reports and the model cards; written by `audit` (its verdict),
`export` (operating points, abstention) and `evaluate` (intervals). Plain data: pydantic only.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Verdict = Literal["clean", "suspicious", "shortcut"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Part):
    """A figure and its 95 % bootstrap interval over groups."""

    value: float
    low: float
    high: float

    @model_validator(mode="after")
    def _bounds_rise(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        return self


class AuditScore(_Part):
    """How far one model that sees next to nothing got."""

    #: e.g. ``file_facts``, ``border``, ``thumbnail``, ``colour``, ``source``.
    name: str
    #: What it was shown, in words.
    sees: str
    macro_f1: Interval
    #: Share of the way from chance to the linear probe; below 0 where it is worse than chance.
    share: float
    verdict: Verdict
    #: Whether this audit counts for the task's verdict. What a thumbnail or a colour histogram
    #: shows may be the disease itself; file facts and borders may not.
    decides: bool


class AuditReport(_Part):
    """audit.json: what may be known of the labels without looking at the subject."""

    schema_version: Literal[1] = 1
    task: str
    n_images: Annotated[int, Field(ge=1)]
    n_groups: Annotated[int, Field(ge=1)]
    folds: int
    #: Macro-F1 of always answering the majority class.
    chance: float
    #: Macro-F1 of a linear probe on the frozen backbone's embeddings, on the same folds.
    probe: Interval
    scores: tuple[AuditScore, ...]
    #: The worst verdict among the scores that decide.
    verdict: Verdict
    #: Why a shortcut is accepted, from params; null where it is not.
    accepted: str | None
    #: Bounds on `AuditScore.share`, from params.
    suspicious_share: float
    shortcut_share: float
    #: By source, the share of its images that have its commonest label; empty without sources.
    source_purity: dict[str, float] = Field(default_factory=dict)
    #: Images whose label the cross-validated probe doubts (confident learning).
    n_label_doubts: int = 0


class OperatingPoint(_Part):
    """From which probability on one label is answered with yes; chosen on the val split."""

    threshold: Annotated[float, Field(ge=0, le=1)]
    #: The specificity that was asked for.
    min_specificity: float
    sensitivity: float
    specificity: float
    #: Val images with and without the label that it rests on.
    n_positive: int
    n_negative: int

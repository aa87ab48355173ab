"""Section ``prepare`` of a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pipelines.card import Slug
from pipelines.strict_yaml import Share, Strict


class PrepareParams(Strict):
    """What may enter, and how it is split."""

    #: Labels to use, in this order; null for all labels of the card.
    classes: tuple[Slug, ...] | None = Field(default=None, strict=False)
    val_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    test_fraction: Annotated[float, Field(gt=0, lt=0.5)]
    #: Two images whose 64-bit perceptual hashes differ in at most so many bits are near duplicates.
    near_duplicate_bits: Annotated[int, Field(ge=0, le=16)]
    #: A larger share of refused files, of all or of a class (conflicting copies too), stops it.
    max_quarantine_fraction: Share
    max_class_loss: Share = 0.5
    #: Images with a shorter side below this are refused.
    min_side_px: Annotated[int, Field(ge=2)]

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> PrepareParams:
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes names a label twice")
        return self

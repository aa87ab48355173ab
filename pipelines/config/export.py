"""Section ``export`` of a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.strict_yaml import Positive, Share, Strict


class ExportParams(Strict):
    """How the float model becomes a phone-sized one; bounds are tried on the val split."""

    #: Images of the train split that calibrate, stratified by label.
    calibration_images: Annotated[int, Field(ge=8)]
    #: Tried in this order until the bounds hold on val.
    remedies: tuple[str, ...] = Field(strict=False)
    #: Share of val images on which int8 and fp32 give the same answer, at least.
    min_agreement: Share
    #: Of a classification, largest drop of val accuracy and of val macro-F1 from fp32 to int8.
    max_accuracy_drop: Share | None = None
    max_macro_f1_drop: Share | None = None
    #: For ten classes or fewer; each further one adds 1,300: its part of the head. So in the gate.
    max_int8_bytes: Annotated[int, Field(ge=1)]
    #: int8 is served if it holds the bounds and is at least so many times as fast on one thread.
    min_speedup: Positive
    #: Share of the val images that the abstention accepts as of the kind that the model knows.
    acceptance: Annotated[float, Field(gt=0.5, lt=1, strict=False)]
    #: Least specificity, on val, of the operating point of each alarm (see the card); null: none.
    min_specificity: Annotated[float, Field(gt=0, lt=1, strict=False)] | None = None

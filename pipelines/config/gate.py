"""Section ``gate`` of a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.config.bounds import Share
from pipelines.strict_yaml import Strict


class GateParams(Strict):
    """What a model must reach on the test split to be released; metrics of the served file."""

    min_accuracy: Share
    min_macro_f1: Share
    min_agreement: Share
    max_accuracy_drop: Share
    #: Largest drop of one class's recall from fp32 to int8.
    max_recall_drop: Share
    max_int8_bytes: Annotated[int, Field(ge=1)]

"""Numbers with a bound, as the sections of params.yaml take them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Share = Annotated[float, Field(ge=0.0, le=1.0, strict=False)]
Positive = Annotated[float, Field(gt=0.0, strict=False)]
NotNegative = Annotated[float, Field(ge=0.0, strict=False)]

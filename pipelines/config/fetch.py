"""Section ``fetch`` of a task."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipelines.card import AnySource
from pipelines.strict_yaml import Strict


class FetchParams(Strict):
    """Where the images come from."""

    source: Annotated[AnySource, Field(discriminator="kind")]

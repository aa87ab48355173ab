"""How the files of a data set are read: one scale of deep pixels, one bound of the aspect.

The card states both, `prepare` reads by them, and they travel with the model: every later door of
the same model reads alike. Needs nothing but NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

#: ``full`` (the whole range of the stored type), two stored values, or nothing stated.
Scale = Literal["full"] | tuple[float, float] | None

#: A longer picture leaves a model less than a twentieth of it to look at, or a smear.
MAX_ASPECT = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is the same for every file of a data set.

    Attributes:
        range: which stored values of a picture with more than 8 bits a channel are shown as black
            and as white; None refuses such a picture. Pictures of 8 bits are taken as they are:
            their file says already what is black and white.
        max_aspect: a picture whose longer side is more than so many times the shorter is refused.
    """

    range: Scale = None
    max_aspect: float = MAX_ASPECT

    def __post_init__(self) -> None:
        """Refuse what is no range and no bound."""
        if isinstance(self.range, tuple):
            low, high = self.range
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"range: expected two numbers, low below high, got {self.range}")
        if not (math.isfinite(self.max_aspect) and self.max_aspect >= 1):
            raise ValueError(f"max_aspect must be at least 1, got {self.max_aspect}")


#: Where no data set states anything: deep pictures are refused.
AS_IT_COMES = Reading()


def words(scale: Scale) -> str:
    """A range as a person reads it, e.g. ``0..4095``.

    Args:
        scale: as in `Reading`.
    """
    if isinstance(scale, tuple):
        return f"{scale[0]:.10g}..{scale[1]:.10g}"
    return "of its type" if scale == "full" else "not stated"

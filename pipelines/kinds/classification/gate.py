"""The bounds of a classification, by their names in params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple


class NamedBound(NamedTuple):
    """What a name of params.yaml asks.

    Attributes:
        metric: as of `Demand`.
        sense: on which side of the bound it must be.
        is_of_int8: whether it is asked only where int8 is served. Where fp32 is, `export` found
            that int8 is not worth its loss and kept it as a second file, and nobody is harmed.
    """

    metric: str
    sense: Literal["at_least", "at_most"]
    is_of_int8: bool = False


NAMED: Mapping[str, NamedBound] = {
    "min_accuracy": NamedBound("served.accuracy", "at_least"),
    "min_macro_f1": NamedBound("served.macro_f1", "at_least"),
    "min_agreement": NamedBound("agreement", "at_least", is_of_int8=True),
    "max_accuracy_drop": NamedBound("accuracy_drop", "at_most", is_of_int8=True),
    "max_recall_drop": NamedBound("max_recall_drop", "at_most", is_of_int8=True),
}

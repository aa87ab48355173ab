"""The bounds of a classification, from their names in params.yaml."""

from __future__ import annotations

from pipelines.config.gate import Demand, GateParams
from pipelines.serving.bundle import Bundle


def demands(bundle: Bundle, params: GateParams) -> list[Demand]:
    """The floors of the served file and, while int8 is served, the bounds on what int8 costs.

    Where fp32 is served these do not count: `export` found that int8 is not worth its loss and kept
    it only as a second file, and nobody would be harmed by it.

    Args:
        bundle: says which file is served.
        params: the task's ``gate`` section.
    """
    floors = [
        Demand(metric="served.accuracy", at_least=params.min_accuracy),
        Demand(metric="served.macro_f1", at_least=params.min_macro_f1),
    ]
    if bundle.served.precision != "int8":
        return floors
    return [
        *floors,
        Demand(metric="agreement", at_least=params.min_agreement),
        Demand(metric="accuracy_drop", at_most=params.max_accuracy_drop),
        Demand(metric="max_recall_drop", at_most=params.max_recall_drop),
    ]

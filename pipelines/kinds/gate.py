"""What the gate asks of a model, by its kind: a list of metrics with the least or the most."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config.gate import Demand, GateParams
from pipelines.kinds.classification import gate as classification
from pipelines.serving.bundle import Bundle

#: From the bundle and the params of a task, the bounds that the kind has names for.
KINDS: dict[str, Callable[[Bundle, GateParams], list[Demand]]] = {
    "classification": classification.demands
}


def demands(bundle: Bundle, params: GateParams) -> list[Demand]:
    """Every bound on a model: those of its kind, then those that params.yaml lists.

    Args:
        bundle: of the model.
        params: the task's ``gate`` section.
    """
    return [*KINDS[bundle.kind](bundle, params), *params.demands]

"""What the gate asks of a model, by its kind: a list of metrics with the least or the most."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.config.gate import Demand, GateParams
from pipelines.errors import ConfigError
from pipelines.kinds.classification.gate import NAMED, NamedBound
from pipelines.serving.bundle import Bundle

#: The bounds that a kind has names for, each of which must be given; others are no bounds of it.
KINDS: Mapping[str, Mapping[str, NamedBound]] = {
    "classification": NAMED,
    "detection": {},
    "segmentation": {},
    "embedding": {},
}


def demands(bundle: Bundle, params: GateParams) -> list[Demand]:
    """Every bound on a model: those of its kind, then those that params.yaml lists.

    Args:
        params: the task's ``gate`` section.

    Raises:
        ConfigError: as `check_named`, or if nothing at all is asked.
    """
    check_named(bundle.kind, params, bundle.task)
    given = params.named
    return [
        *(
            Demand.model_validate({"metric": bound.metric, bound.sense: given[name]})
            for name, bound in KINDS[bundle.kind].items()
            if bundle.served.precision == "int8" or not bound.is_of_int8
        ),
        *params.demands,
    ]


def check_named(kind: str, params: GateParams, task: str) -> None:
    """Nothing, if a task of this kind has the bounds that it must have, and no other kind's.

    Raises:
        ConfigError: names the first that is missing or too much.
    """
    named, given = KINDS[kind], params.named
    wrong = sorted(named.keys() ^ given.keys())
    if wrong:
        is_missing = wrong[0] in named
        raise ConfigError(
            f"params.yaml: tasks.{task}.gate.{wrong[0]}: "
            f"{'is missing' if is_missing else f'is no bound of the kind {kind}'}. Expected "
            f"{', '.join(named) or 'demands alone: a list of metric with at_least or at_most'}."
        )
    if not given and not params.demands:
        raise ConfigError(
            f"params.yaml: tasks.{task}.gate.demands: is empty, so that any model would be "
            f"released. Expected at least one metric with at_least or at_most."
        )

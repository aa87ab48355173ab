"""The parts of a scoring on a Ray cluster, or on one that is started here (extra ``scale``).

Ray Data hands parts to actors. Paths must mean the same on every node: a shared folder, or a store
for the pictures and a shared folder for what is written.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.errors import PipelineError
from pipelines.scale.cluster import first_line, joined
from pipelines.scale.inputs import Input
from pipelines.scale.scoring import Job, Part, Scorer

#: Of a core, reserved by an actor. Two that reserve all of two cores leave none to Ray Data's own
#: tasks, and it waits for ever without a word (ray-project/ray#44687).
_CPUS = 0.5
#: Of a part whose worker died. Ray would go on for ever with a picture that ends each of them.
_RETRIES = 3


def score_parts(
    job: Job, parts: Sequence[Part], n_workers: int, address: str | None
) -> Iterator[Part]:
    """As `scoring.score_parts`, by actors of one thread each.

    Args:
        address: of a running cluster, as ``ray.init`` takes it; None starts one on this machine and
            ends it.

    Raises:
        ConfigError: as `cluster.joined` says.
        PipelineError: if actors or nodes were lost, or a part cannot be written; what is done is
            kept.
    """
    if not parts:
        return
    with joined(n_workers, address) as (ray, _):
        import_module("ray.data")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        by_target = {str(part.target.resolve()): part for part in parts}
        rows = [
            {
                "names": [each.name for each in part.inputs],
                "locations": [each.location for each in part.inputs],
                "target": target,
            }
            for target, part in by_target.items()
        ]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Actor,
            fn_constructor_args=[job],
            compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(rows))),
            num_cpus=_CPUS,
            max_task_retries=_RETRIES,
        )
        try:
            for row in data.iter_rows():
                if row["error"]:
                    raise PipelineError(row["error"])
                yield by_target[row["target"]]
        except ray.exceptions.RayError as err:
            raise PipelineError(
                f"score: Ray lost what was at work ({first_line(err)}). What is done is kept: run "
                f"the same command again."
            ) from err


class _Actor:
    def __init__(self, job: Job) -> None:
        # What fails here, or is raised below, Ray wraps in words of its own.
        self._scorer = cache(partial(Scorer, job))

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        inputs = [Input(*each) for each in zip(row["names"], row["locations"], strict=True)]
        try:
            self._scorer()(inputs, Path(row["target"]))
        except PipelineError as err:
            return {"target": row["target"], "error": str(err)}
        return {"target": row["target"], "error": ""}

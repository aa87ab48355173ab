"""The parts of a scoring on a Ray cluster, or on one that is started here (extra ``scale``).

Ray Data hands parts to actors. Paths must mean the same on every node: a shared folder, or a store
for the pictures and a shared folder for what is written.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipelines.errors import ConfigError, PipelineError
from pipelines.scale.inputs import Input
from pipelines.scale.scoring import Job, Part, Scorer

#: Of a core, reserved by an actor. Two that reserve all of two cores leave none to Ray Data's own
#: tasks, and it waits for ever without a word (ray-project/ray#44687).
_CPUS = 0.5
#: Of a part whose worker died. Ray would go on for ever with a picture that ends each of them.
_RETRIES = 3
#: Seconds in which a cluster takes a connection.
_PATIENCE_S = 5.0


def score_parts(
    job: Job, parts: Sequence[Part], n_workers: int, address: str | None
) -> Iterator[Part]:
    """As `scoring.score_parts`, by actors of one thread each.

    Args:
        address: of a running cluster, as ``ray.init`` takes it; None starts one on this machine and
            ends it.

    Raises:
        ConfigError: if Ray is not installed, the address does not answer, runs another version, or
            has fewer processors than workers.
        PipelineError: if actors or nodes were lost, or a part cannot be written; what is done is
            kept.
    """
    if not parts:
        return
    with _cluster(n_workers, address) as ray:
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
                f"score: Ray lost what was at work ({_first_line(err)}). What is done is kept: run "
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


@contextmanager
def _cluster(n_workers: int, address: str | None) -> Iterator[Any]:
    # Ray reports its use to its makers otherwise.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
        import ray.data
    except ImportError as err:
        raise ConfigError(
            "--engine ray: ray is not installed. Run pip install 'fieldlens[scale]'."
        ) from err
    if address is not None:
        _answers(address)
    own = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        raise ConfigError(
            f"--address: {address or 'this machine'}: Ray {ray.__version__} cannot join "
            f"({_first_line(err)}). Expected the address of a cluster that runs, of the same "
            f"version of Ray and Python, and its token in RAY_AUTH_TOKEN."
        ) from err
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        n_cpus = int(ray.cluster_resources().get("CPU", 0))
        if n_workers > n_cpus:
            raise ConfigError(
                f"--workers: {n_workers} asked, but the cluster has {n_cpus} processors. Ask for "
                f"at most {n_cpus}."
            )
        yield ray
    finally:
        ray.shutdown()


def _answers(address: str) -> None:
    """Nothing, if something listens there; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        if not (host and port.isdecimal()):
            raise ConfigError(f"--address: expected HOST:PORT (got {address!r}).")
        with socket.create_connection((host, int(port)), _PATIENCE_S):
            return
    except OSError as err:
        raise ConfigError(
            f"--address: nothing answers at {address} ({err}). Start a cluster there (ray start "
            f"--head), or leave out --address for one on this machine."
        ) from err


def _first_line(err: BaseException) -> str:
    return (str(err).strip() or type(err).__name__).splitlines()[0]

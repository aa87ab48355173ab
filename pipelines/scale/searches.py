"""The candidates of a search as trials of Ray Tune: an engine of `pipelines.search.run`.

Answers come in another order in each run, so that a study cannot be replayed as `run_study` does.
Here what is known of the search's networks is told to the sampler first, and as many more are asked
about as are missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.config.search import Controller, RewardParams
from pipelines.errors import ConfigError
from pipelines.scale.cluster import Cluster, joined
from pipelines.scale.sweeps import Sampled, Trial, sweep
from pipelines.search.controllers import OBJECTIVES, distributions, sampler
from pipelines.search.records import Records, Score
from pipelines.search.reward import reward_of
from pipelines.search.run import Engine
from pipelines.search.space import Network, Space
from pipelines.search.study import Candidate, baselines_of

Evaluate = Callable[[Network], Score]


@contextmanager
def ray_engine(n_workers: int | None, address: str | None) -> Iterator[Engine]:
    """What asks about candidates on a cluster, one thread each, for a block.

    Args:
        n_workers: candidates at a time; None for one a free processor.
        address: as `cluster.joined` takes it.

    Raises:
        ConfigError: as `cluster.joined` says.
    """
    with joined(n_workers, address) as cluster:
        yield partial(_study, cluster)


def _study(
    cluster: Cluster,
    space: Space,
    evaluate: Evaluate,
    records: Records,
    controller: Controller,
    n: int,
    *,
    reward: RewardParams,
    seed: int,
    retry: bool = False,
    told: Callable[[Candidate], None] = lambda candidate: None,
) -> list[Candidate]:
    if len(OBJECTIVES[controller]) > 1:
        raise ConfigError(
            f"params.yaml: search.controller: {controller} wants accuracy and latency apart, and "
            f"a sweep on Ray has one metric. Expected another, or --engine local."
        )
    function = _Asked(space, evaluate, reward, records.key(space.smallest))
    found: list[Candidate] = []
    named = {network: name for name, network in baselines_of(space).items()}

    def keep(network: Network) -> None:
        record = records.get(network)
        assert record is not None  # its caller has seen to it
        baseline = named.get(network, "")
        found.append(Candidate.of(len(found), network, record, reward, baseline))
        told(found[-1])

    def done(trial: Trial) -> None:
        network = space.network(trial.question)  # type: ignore[arg-type]
        score = None if trial.answer is None else Score.model_validate(trial.answer["score"])
        seconds = 0.0 if trial.answer is None else float(str(trial.answer["seconds"]))
        records.add(network, score, trial.error, seconds)
        keep(network)

    def is_known(network: Network) -> bool:
        record = records.get(network)
        return record is not None and (record.is_sound or not retry)

    known = [network for network in [*named, *records.networks] if is_known(network)]
    for network in dict.fromkeys(known):
        keep(network)
    missing = [space.choice(network) for network in named if not is_known(network)]
    sweep(function, missing, cluster, done=done)
    n_proposed = sum(1 for each in found if not each.baseline)
    if n_proposed < n:
        asked = distributions(space)
        sampled = Sampled(
            space=asked,
            # One that draws by its seed alone would draw the same again.
            sampler=sampler(controller, space, seed + n_proposed),
            metric="reward",
            mode="max",
            n_questions=n - n_proposed,
            known=[
                (space.choice(each.network), each.reward)
                for each in found
                if each.reward is not None
            ],
        )
        sweep(function, sampled, cluster, done=done)
    return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """An evaluation, as `sweep` asks it; there and back go plain values.

    Attributes:
        key: of the search: a process opens its supernet once.
    """

    space: Space
    evaluate: Evaluate
    reward: RewardParams
    key: str

    def __call__(self, question: dict[str, Any]) -> dict[str, object]:
        began = time.monotonic()
        evaluate = _OPENED.setdefault(self.key, self.evaluate)
        score = evaluate(self.space.network(question))
        value = reward_of(score, self.reward)
        answer = {"score": score.model_dump(), "seconds": time.monotonic() - began}
        return answer if value is None else {**answer, "reward": value}


#: By a search's key, what has its supernet in memory.
_OPENED: dict[str, Evaluate] = {}

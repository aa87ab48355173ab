"""A search: a controller proposes, a network is evaluated, the controller hears of it.

Nothing of a study is stored but what networks came to (`pipelines.search.records`). A study that
was killed is run again from its first candidate: controllers propose the same to the same answers,
and what has been evaluated is answered from its record, so that it is at the place where it was
killed within seconds, and goes on as if it had not been.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import optuna
from optuna.trial import TrialState

from pipelines.config.search import Controller, RewardParams
from pipelines.errors import in_one_line
from pipelines.progress import track
from pipelines.search.controllers import OBJECTIVES, distributions, sampler, told_values
from pipelines.search.records import Record, Records, Score
from pipelines.search.reward import reward_of
from pipelines.search.space import Network, Space

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that a study has asked about.

    Attributes:
        number: of those of its study; baselines first, from 0.
        network: which.
        record: what it came to.
        reward: None where it failed or its latency was refused.
        baseline: what it is called, where no controller proposed it; else empty.
    """

    number: int
    network: Network
    record: Record
    reward: float | None
    baseline: str = ""

    @classmethod
    def of(
        cls, number: int, network: Network, record: Record, params: RewardParams, baseline: str = ""
    ) -> Candidate:
        """With the reward that params give for its score."""
        value = reward_of(record.score, params) if record.score else None
        return cls(number, network, record, value, baseline)

    @property
    def score(self) -> Score | None:
        """None where it failed."""
        return self.record.score


def baselines_of(space: Space) -> dict[str, Network]:
    """By name: the base at each side of the input, the smallest network and the largest."""
    bases = {f"{space.base.base}, {px} px": space.base_at(px) for px in space.params.image_px}
    return {**bases, "smallest": space.smallest, "largest": space.largest}


def run_study(
    space: Space,
    evaluate: Callable[[Network], Score],
    records: Records,
    controller: Controller,
    n: int,
    *,
    reward: RewardParams,
    seed: int,
    baselines: Mapping[str, Network] | None = None,
    retry: bool = False,
    told: Callable[[Candidate], None] = lambda candidate: None,
) -> list[Candidate]:
    """Ask about the baselines, and then about as many networks as are wanted.

    A network that has a record is not evaluated again. One that fails is a candidate with an error,
    and ends nothing; neither it nor one whose latency was refused is told to the controller.

    Args:
        space: what may be proposed.
        evaluate: what a network is worth and costs; whatever it raises is that network's error.
        records: what is known already, and where answers are kept.
        controller: who proposes.
        n: proposals, beside the baselines; one that is proposed twice counts twice.
        reward: which accuracy for which latency.
        seed: of the controller.
        baselines: by name; by default `baselines_of` the space. Controllers hear of those that the
            space holds.
        retry: evaluate those again that failed, or whose latency was refused.
        told: hears of each candidate once it is kept.

    Returns:
        Every candidate, in order.

    Raises:
        StorageError: if a record cannot be kept.
    """
    study = _study(controller, space, seed)
    asked = distributions(space)
    named = baselines_of(space) if baselines is None else baselines
    found: list[Candidate] = []
    retried: set[str] = set()

    def keep(network: Network, baseline: str = "") -> Candidate:
        record = records.get(network)
        is_again = retry and record is not None and not record.is_sound
        if record is None or (is_again and record.key not in retried):
            record = _evaluated(network, evaluate, records)
            retried.add(record.key)
        candidate = Candidate.of(len(found), network, record, reward, baseline)
        _say_if_best(candidate, found)
        found.append(candidate)
        told(candidate)
        return candidate

    to_ask = [*named.items(), *([("", None)] * n)]
    for name, network in track(to_ask, f"{controller}: candidates", len(to_ask)):
        if network is not None:
            choice = space.choice(network)
            if not all(choice[key] in each.choices for key, each in asked.items()):
                keep(network, name)
                continue
            study.enqueue_trial(choice)
        trial = study.ask(asked)
        candidate = keep(space.network(trial.params), name)
        if candidate.score is None or candidate.reward is None:
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, told_values(controller, candidate.score, candidate.reward))
    return found


def _study(controller: Controller, space: Space, seed: int) -> optuna.Study:
    """In memory, without its lines in the log."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            directions=list(OBJECTIVES[controller].values()),
            sampler=sampler(controller, space, seed),
        )
    finally:
        optuna.logging.set_verbosity(level)


def _evaluated(network: Network, evaluate: Callable[[Network], Score], records: Records) -> Record:
    start = time.monotonic()
    try:
        score, error = evaluate(network), None
    except Exception as err:  # noqa: BLE001 (whatever ends one network must not end the search)
        score, error = None, in_one_line(err)
        _LOG.warning("%s at %d px has failed: %s", network.line, network.image_px, error)
        _LOG.debug("the error came from here", exc_info=True)
    return records.add(network, score, error, time.monotonic() - start)


def _say_if_best(candidate: Candidate, before: Iterable[Candidate]) -> None:
    rewards = [other.reward for other in before if other.reward is not None]
    value, score = candidate.reward, candidate.score
    if value is None or score is None or value <= max(rewards, default=-1.0):
        return
    _LOG.info(
        "candidate %d is the best so far: reward %.4f, accuracy %.4f, latency %.2f of the "
        "reference%s",
        candidate.number,
        value,
        score.accuracy,
        score.ratio,
        f" ({candidate.baseline})" if candidate.baseline else "",
    )

"""Controllers as samplers of Optuna: what they draw, what they learn, and from what."""

from __future__ import annotations

import copy
from itertools import pairwise
from statistics import mean
from typing import get_args

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from pipelines.config.search import Controller
from pipelines.search.controllers import (
    OBJECTIVES,
    Reinforce,
    ReinforceSettings,
    distributions,
    sampler,
)
from tests.toy_search import SPACE

CHOICES = {f"d{n}": CategoricalDistribution(tuple("abcd"[: 2 + n % 3])) for n in range(8)}


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def value(params) -> float:
    """The share of decisions that are the last option; two neighbours that are alike add to it."""
    last = [params[name] == each.choices[-1] for name, each in CHOICES.items()]
    return mean(last) + 0.1 * sum(a == b for a, b in pairwise(last)) / 7


def told(study: optuna.Study, n: int, sign: float = 1.0) -> list[dict]:
    drawn = []
    for _ in range(n):
        trial = study.ask(CHOICES)
        drawn.append(dict(trial.params))
        study.tell(trial, sign * value(trial.params))
    return drawn


@pytest.mark.parametrize("controller", get_args(Controller))
def test_every_controller_serves_a_plain_study_that_asks_and_tells(controller):
    """As Ray Tune's OptunaSearch does: a study of its own in memory, and distributions by name."""
    directions = list(OBJECTIVES[controller].values())
    study = optuna.create_study(directions=directions, sampler=sampler(controller, SPACE, 1))
    for _ in range(3):
        trial = study.ask(distributions(SPACE))
        network = SPACE.network(trial.params)
        assert SPACE.choice(network) == trial.params
        study.tell(trial, [0.5] * len(directions))
    # Several workers: more are asked than have been told, and one fails.
    several = [study.ask(distributions(SPACE)) for _ in range(3)]
    study.tell(several[2], [0.7] * len(directions))
    study.tell(several[0], state=TrialState.FAIL)
    assert study.ask(distributions(SPACE)).number == 6


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_policy_learns_what_chance_does_not(sign):
    direction = "maximize" if sign > 0 else "minimize"
    study = optuna.create_study(direction=direction, sampler=Reinforce(CHOICES, 3))
    learnt = [value(params) for params in told(study, 150, sign)]
    chance = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    drawn = [value(params) for params in told(chance, 150)]
    assert mean(learnt[-30:]) > max(drawn)
    assert mean(learnt[:10]) < 0.6


def test_policy_is_a_function_of_the_finished_trials():
    whole = optuna.create_study(sampler=Reinforce(CHOICES, 5), direction="maximize")
    drawn = told(whole, 40)
    # What 23 of them came to, loaded into a study of a process that has seen none of it.
    loaded = optuna.create_study(sampler=Reinforce(CHOICES, 5), direction="maximize")
    loaded.add_trials(whole.trials[:23])
    assert told(loaded, 17) == drawn[23:]
    copied = optuna.create_study(sampler=copy.deepcopy(loaded.sampler), direction="maximize")
    copied.add_trials(whole.trials[:39])
    assert told(copied, 1) == drawn[39:]
    # One sampler that serves another study forgets the first.
    used = optuna.create_study(sampler=whole.sampler, direction="maximize")
    assert told(used, 40) == drawn


def test_trials_that_end_out_of_turn_are_learnt_from_by_number():
    settings = ReinforceSettings(batch=2)
    draws = []
    for ends in ((0, 1, 2, 3), (3, 1, 0, 2)):
        study = optuna.create_study(sampler=Reinforce(CHOICES, 5, settings), direction="maximize")
        trials = [study.ask(CHOICES) for _ in range(4)]
        for number in ends:
            study.tell(trials[number], value(trials[number].params))
            study.ask(CHOICES)
        draws.append(study.sampler.sample_relative(study, study.trials[-1], {}))
    assert draws[0] == draws[1]


def test_what_was_enqueued_or_failed_teaches_the_policy_nothing():
    plain = optuna.create_study(sampler=Reinforce(CHOICES, 7), direction="maximize")
    drawn = told(plain, 12)
    study = optuna.create_study(sampler=Reinforce(CHOICES, 7), direction="maximize")
    assert told(study, 10) == drawn[:10]
    study.enqueue_trial({name: each.choices[0] for name, each in CHOICES.items()})
    study.tell(study.ask(CHOICES), 5.0)
    study.tell(study.ask(CHOICES), state=TrialState.FAIL)
    at_ten = plain.sampler.sample_relative(plain, plain.trials[10], {})
    assert study.sampler.sample_relative(study, study.trials[10], {}) == at_ten


def test_a_decision_that_the_policy_does_not_know_is_drawn_by_chance():
    study = optuna.create_study(sampler=Reinforce(CHOICES, 1), direction="maximize")
    other = CategoricalDistribution(("x", "y"))
    found = [study.ask({**CHOICES, "other": other}).params["other"] for _ in range(20)]
    assert set(found) == {"x", "y"}
    with pytest.raises(TypeError, match="no set of categories"):
        study.ask({"lr": FloatDistribution(0, 1)})


def test_another_seed_draws_others():
    first, second = (
        told(optuna.create_study(sampler=Reinforce(CHOICES, seed), direction="maximize"), 5)
        for seed in (1, 2)
    )
    assert first != second

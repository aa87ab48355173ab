"""Who proposes the next network: samplers of Optuna, by name.

`Reinforce` is ours, the others are Optuna's. All see decisions as categories without an order, and
what they propose is a function of their seed and of what they have been told.

References:
    Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement
    learning" (REINFORCE); Zoph and Le 2017, "Neural architecture search with reinforcement
    learning" (a recurrent policy, one token a decision, a moving average as baseline); Tan et al.
    2019, "MnasNet"; Bergstra et al. 2011 (TPE); Deb et al. 2002 (NSGA-II).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor, nn

from pipelines.config.search import Controller
from pipelines.search.records import Score
from pipelines.search.space import Space

Direction = Literal["maximize", "minimize"]

_REWARD: Mapping[str, Direction] = MappingProxyType({"reward": "maximize"})
#: What a controller is told of a candidate, and where to it wants it. NSGA-II sorts by fronts,
#: which a single reward has not: it is told both parts of it, and knows no target.
OBJECTIVES: Mapping[Controller, Mapping[str, Direction]] = MappingProxyType(
    {
        "reinforce": _REWARD,
        "tpe": _REWARD,
        "random": _REWARD,
        "nsga2": MappingProxyType({"accuracy": "maximize", "ratio": "minimize"}),
    }
)
#: Of NSGA-II: 300 candidates are fifteen generations (Optuna's 50 would be six).
_POPULATION = 20


def distributions(space: Space) -> dict[str, CategoricalDistribution]:
    """Every decision of a space, by name, as Optuna has it."""
    return {each.name: CategoricalDistribution(each.options) for each in space.decisions}


def sampler(controller: Controller, space: Space, seed: int) -> BaseSampler:
    """A controller, for a study with its `OBJECTIVES` whose trials ask for `distributions`."""
    if controller == "reinforce":
        return Reinforce(distributions(space), seed)
    if controller == "tpe":
        # Jointly: what a stage wants depends on the other stages. No decision depends on whether
        # another is asked, so there is nothing to group.
        return TPESampler(seed=seed, multivariate=True)
    if controller == "nsga2":
        return NSGAIISampler(seed=seed, population_size=_POPULATION)
    return RandomSampler(seed=seed)


def told_values(controller: Controller, score: Score, reward: float) -> list[float]:
    """What a controller is told of a candidate, in the order of its `OBJECTIVES`."""
    known = {"reward": reward, "accuracy": score.accuracy, "ratio": score.ratio}
    return [known[name] for name in OBJECTIVES[controller]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinforceSettings:
    """Of the policy and of its learning.

    Attributes:
        hidden: of the LSTM.
        batch: rollouts a step of the optimiser.
        learning_rate: of Adam.
        entropy: weight of the bonus for doubt, beside advantages of unit size.
        decay: of the moving averages, a batch.
    """

    hidden: int = 32
    batch: int = 5
    learning_rate: float = 0.02
    entropy: float = 0.1
    decay: float = 0.8


class Reinforce(BaseSampler):  # type: ignore[misc]
    """A recurrent policy that learns from rewards which decisions to take.

    Its state is a function of the study's finished trials, replayed by number: a study that was
    killed goes on as if it had not been, nothing of the policy is ever stored, and trials that end
    in another order than they began (on several workers) are learnt from in the order of their
    numbers. A trial's draw depends on the policy, the seed and the trial's number alone.

    Trials that were enqueued (baselines) teach nothing: they were not drawn, and the gradient of a
    policy is an expectation over its own draws. Failed trials teach nothing either.
    """

    def __init__(
        self,
        space: Mapping[str, CategoricalDistribution],
        seed: int,
        settings: ReinforceSettings | None = None,
    ) -> None:
        """A policy that has learnt nothing.

        Args:
            space: distributions by decision, in the order in which they are decided.
            seed: of first weights and of draws.
            settings: by default those that the search uses.
        """
        self._space = dict(space)
        self._seed = seed
        self._settings = settings or ReinforceSettings()
        self._forget()

    def _forget(self) -> None:
        sizes = [len(each.choices) for each in self._space.values()]
        self._learner = _Learner(sizes, self._seed, self._settings)
        self._learnt: list[_Rollout] = []

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All decisions: one trial draws them together."""
        return dict(self._space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One rollout of the policy."""
        self._learn(study)
        chosen = self._learner.policy.draw(np.random.default_rng([self._seed, trial.number]))
        return {
            name: each.choices[index]
            for (name, each), index in zip(self._space.items(), chosen, strict=True)
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What the policy does not know of, by chance.

        Raises:
            TypeError: if it is no category.
        """
        if not isinstance(param_distribution, CategoricalDistribution):
            raise TypeError(f"{param_name}: {param_distribution} is no set of categories.")
        name = int.from_bytes(param_name.encode())
        draws = np.random.default_rng([self._seed, trial.number, name])
        return param_distribution.choices[int(draws.integers(len(param_distribution.choices)))]

    def _learn(self, study: Study) -> None:
        """Bring the policy to where the study's finished trials bring it."""
        rollouts = self._rollouts(study)
        if rollouts[: len(self._learnt)] != self._learnt:
            # Another study, or a trial that has ended after ones of higher numbers.
            self._forget()
        size = self._settings.batch
        for start in range(len(self._learnt), len(rollouts) - size + 1, size):
            batch = rollouts[start : start + size]
            self._learner.step(batch)
            self._learnt += batch

    def _rollouts(self, study: Study) -> list[_Rollout]:
        sign = -1.0 if study.direction == StudyDirection.MINIMIZE else 1.0
        found = []
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for trial in sorted(trials, key=lambda trial: trial.number):
            if (
                "fixed_params" in trial.system_attrs
                or not self._space.keys() <= trial.params.keys()
            ):
                continue
            chosen = tuple(
                each.choices.index(trial.params[name]) for name, each in self._space.items()
            )
            assert trial.value is not None  # it is complete
            found.append(_Rollout(chosen, sign * trial.value))
        return found


@dataclass(frozen=True, slots=True)
class _Rollout:
    #: By decision, the index of the option.
    chosen: tuple[int, ...]
    reward: float


class _Policy(nn.Module):
    """An LSTM over the sequence of decisions; each decision has a read-out of its own."""

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        starts = list(accumulate(sizes, initial=0))
        n_options = starts.pop()
        most = max(sizes)
        # (decisions, most): columns of a decision's options among all; the last is of no option.
        columns = torch.full((len(sizes), most), n_options)
        for row, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            columns[row, :size] = torch.arange(start, start + size)
        self.columns: Tensor
        self.register_buffer("columns", columns)
        # What was decided last; the last row stands for "nothing yet".
        self.before = nn.Embedding(n_options + 1, hidden)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
        self.readout = nn.Linear(hidden, n_options)
        # Every option is as likely as the others at first.
        nn.init.zeros_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def log_probabilities(self, chosen: Tensor) -> Tensor:
        """Of every option, given the choices before it.

        Args:
            chosen: (n, decisions) indices of options.

        Returns:
            (n, decisions, most options of a decision); minus infinity where there is no option.
        """
        picked = self.columns.expand(len(chosen), -1, -1).gather(2, chosen.unsqueeze(2)).squeeze(2)
        nothing = torch.full_like(picked[:, :1], self.before.num_embeddings - 1)
        states, _ = self.lstm(self.before(torch.cat((nothing, picked[:, :-1]), dim=1)))
        logits: Tensor = nn.functional.pad(self.readout(states), (0, 1), value=-torch.inf)
        own = logits.gather(2, self.columns.expand(len(chosen), -1, -1))
        found: Tensor = own.log_softmax(dim=2)
        return found

    @torch.no_grad()
    def draw(self, draws: np.random.Generator) -> list[int]:
        """A choice a decision, as indices of options."""
        chosen: list[int] = []
        state = None
        last = torch.tensor([[self.before.num_embeddings - 1]])
        for number, at in enumerate(draws.random(len(self.columns))):
            hidden, state = self.lstm(self.before(last), state)
            columns = self.columns[number]
            columns = columns[columns < self.readout.out_features]
            logits = nn.functional.linear(
                hidden[0, 0], self.readout.weight[columns], self.readout.bias[columns]
            )
            up_to = logits.softmax(dim=0).double().cumsum(dim=0)
            index = min(int(torch.searchsorted(up_to, float(at))), len(columns) - 1)
            chosen.append(index)
            last = columns[index].reshape(1, 1)
        return chosen


class _Learner:
    """A policy, its optimiser, and the moving averages that rewards are compared with."""

    def __init__(self, sizes: Sequence[int], seed: int, settings: ReinforceSettings) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = _Policy(sizes, settings.hidden)
        self._settings = settings
        self._optimiser = torch.optim.Adam(self.policy.parameters(), lr=settings.learning_rate)
        self._mean: float | None = None
        self._square = 0.0

    def step(self, batch: Sequence[_Rollout]) -> None:
        """One step up the expected reward, and a little towards doubt."""
        # In double precision: where all are alike, a variance is a difference of large numbers.
        rewards = torch.tensor([rollout.reward for rollout in batch], dtype=torch.float64)
        chosen = torch.tensor([rollout.chosen for rollout in batch])
        log = self.policy.log_probabilities(chosen)
        taken = log.gather(2, chosen.unsqueeze(2)).sum(dim=(1, 2))
        # Of what is no option too: its probability is 0, whatever stands for its logarithm.
        doubt = -(log.exp() * log.masked_fill(log.isinf(), 0.0)).sum(dim=2).mean()
        loss = -(self._advantages(rewards).float() * taken).mean() - self._settings.entropy * doubt
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def _advantages(self, rewards: Tensor) -> Tensor:
        """(n,) by how much rewards are above what is usual, in standard deviations of it."""
        mean = float(rewards.mean())
        if self._mean is None:
            self._mean, self._square = mean, float(rewards.square().mean())
        spread = max(self._square - self._mean**2, 1e-12) ** 0.5
        found: Tensor = (rewards - self._mean) / spread
        keep = self._settings.decay
        self._mean = keep * self._mean + (1 - keep) * mean
        self._square = keep * self._square + (1 - keep) * float(rewards.square().mean())
        return found

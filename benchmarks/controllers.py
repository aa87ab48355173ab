"""Which controller of a search finds the most within the same number of candidates.

A real evaluation takes seconds, and a comparison of four controllers, three seeds and 300
candidates hours. So controllers are set before surrogates, which cost nothing and are no networks:

- Made up (without --task): latency is a sum over blocks of their multiply-adds, those of depthwise
  convolutions counted three times, and a constant for a squeeze-and-excitation; accuracy is a sum
  over decisions, whose parts are drawn by chance (--surrogates: seeds of that), and a deviation of
  each network that nothing explains (--luck, its standard deviation), as a small val split has.
- Fitted (--task): the same two sums, accuracy and the logarithm of latency, fitted by ridge
  regression to the candidates that searches of that task have recorded; and, beside it, the rewards
  of those searches themselves, replayed from their records, of each controller and seed of which
  there is a study.

Times are of the processor, of this thread: of a replay from records, in which nothing is evaluated.

    python benchmarks/controllers.py --figure rewards.png
    python benchmarks/controllers.py --root .real --task tomato_leaf
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from report import header, make_parser, run, say, table

from pipelines.atomic import write_bytes
from pipelines.backbones.architecture import Block, parse
from pipelines.config.params import load_params
from pipelines.config.search import Controller, RewardParams, SearchParams
from pipelines.errors import MissingDataError
from pipelines.paths import Paths
from pipelines.search.records import Record, Records, Score, read_records
from pipelines.search.space import Network, Space

if TYPE_CHECKING:
    from pipelines.search.study import Candidate

#: The reward's mean is of so many last candidates.
_LAST = 50
#: A fit to fewer says nothing of 37 decisions.
_FEWEST = 100
_FOLDS = 5


def main() -> int:
    """Parse, search, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", help="whose recorded candidates are taken; none: made up")
    parser.add_argument("--controllers", nargs="+", default=get_args(Controller))
    parser.add_argument("--candidates", type=int, default=300, help="beside baselines (300)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--surrogates", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--luck", type=float, default=0.01, help="of accuracy (0.01)")
    parser.add_argument("--figure", type=Path, help="PNG file of the rewards' curves")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """A table a surrogate, or one of them all where they are made up."""
    import torch

    torch.set_num_threads(1)
    if arguments.task is None:
        asked = SearchParams()
        space = Space.of(asked.space)
        header("Controllers on made-up surrogates")
        say(f"{len(space.decisions)} decisions, {space.size:.2g} networks.", "")
        surrogates = [MadeUp(space, seed, arguments.luck) for seed in arguments.surrogates]
        _compare(space, asked.reward, surrogates, arguments)
        return
    paths = Paths(arguments.root.resolve())
    asked = load_params(paths.params).tasks[arguments.task].search
    space = Space.of(asked.space)
    found = recorded(paths.root / f"reports/{arguments.task}/search/candidates.jsonl", space)
    header(f"Controllers on `{arguments.task}`, {len(found)} recorded networks")
    replayed(space, asked.reward, found, arguments)
    fitted = Fitted.to(space, found)
    say(
        f"A surrogate fitted to them explains, of networks that were left out, "
        f"{fitted.accuracy_r2:.2f} of the variance of accuracy and {fitted.ratio_r2:.2f} of that "
        f"of the logarithm of latency.",
        "",
    )
    _compare(space, asked.reward, [fitted], arguments)


def _compare(
    space: Space,
    reward: RewardParams,
    surrogates: Sequence[MadeUp | Fitted],
    arguments: argparse.Namespace,
) -> None:
    rows = []
    curves = {}
    for controller in arguments.controllers:
        runs = [
            searched(space, reward, surrogate, controller, arguments.candidates, seed)
            for surrogate in surrogates
            for seed in arguments.seeds
        ]
        curves[controller] = [each.rewards for each in runs]
        rows.append([controller, str(len(runs)), *_cells(runs)])
    rows.append(["best baseline", "", *_baseline_cells(space, reward, surrogates), "", "", ""])
    table(
        [
            "controller",
            "studies",
            "best reward",
            "the same without luck",
            f"mean of the last {_LAST}",
            "different networks",
            "ms of the controller a candidate",
        ],
        rows,
    )
    if arguments.figure is not None:
        from pipelines.plots.search import reward_figure

        write_bytes(arguments.figure, reward_figure(curves, "controllers on surrogates"))


@dataclass(frozen=True, slots=True)
class Run:
    """A study on a surrogate.

    Attributes:
        rewards: of what the controller proposed, in order.
        expected: the reward of its best network without that network's luck.
        n_different: networks.
        ms: of the processor a candidate, in a replay.
    """

    rewards: list[float | None]
    expected: float
    n_different: int
    ms: float

    @property
    def best(self) -> float:
        """The highest."""
        return max(value for value in self.rewards if value is not None)

    @property
    def last(self) -> float:
        """Mean of the last ones."""
        return mean(value for value in self.rewards[-_LAST:] if value is not None)


def _cells(runs: Sequence[Run]) -> list[str]:
    return [
        _spread([each.best for each in runs]),
        _spread([each.expected for each in runs]),
        _spread([each.last for each in runs]),
        f"{mean(each.n_different for each in runs):.0f}",
        f"{mean(each.ms for each in runs):.1f}",
    ]


def _baseline_cells(
    space: Space, reward: RewardParams, surrogates: Sequence[MadeUp | Fitted]
) -> list[str]:
    """What no search is needed for: of each surrogate the best of what is known beforehand."""
    from pipelines.search.reward import reward_of
    from pipelines.search.study import baselines_of

    found = []
    for surrogate in surrogates:
        both = [
            (reward_of(surrogate(each), reward), reward_of(surrogate.without_luck(each), reward))
            for each in baselines_of(space).values()
        ]
        found.append(max((seen or 0.0, plain or 0.0) for seen, plain in both))
    return [_spread([seen for seen, _ in found]), _spread([plain for _, plain in found])]


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def searched(
    space: Space,
    reward: RewardParams,
    surrogate: MadeUp | Fitted,
    controller: Controller,
    n: int,
    seed: int,
) -> Run:
    """A study, and its replay."""
    from pipelines.search.reward import reward_of
    from pipelines.search.study import run_study

    with TemporaryDirectory() as folder:
        file = Path(folder) / "records.jsonl"
        found = run_study(
            space, surrogate, Records(file, ""), controller, n, reward=reward, seed=seed
        )
        known = Records(file, "")
        start = time.thread_time()
        again = run_study(space, surrogate, known, controller, n, reward=reward, seed=seed)
        elapsed_s = time.thread_time() - start
    assert [each.network for each in again] == [each.network for each in found]
    own = [each for each in found if not each.baseline]
    best = max(own, key=lambda each: -1.0 if each.reward is None else each.reward)
    expected = reward_of(surrogate.without_luck(best.network), reward)
    assert expected is not None  # a surrogate refuses nothing
    return Run(
        [each.reward for each in own],
        expected,
        len({each.network for each in own}),
        1000 * elapsed_s / len(found),
    )


# -- surrogates -----------------------------------------------------------------------------------
class MadeUp:
    """A rule that nothing was measured for."""

    def __init__(self, space: Space, seed: int, luck: float) -> None:
        """Draw what each option of each decision adds to the accuracy of the base."""
        self._space = space
        self._luck = luck
        self._seed = seed
        draws = np.random.default_rng(seed)
        self._parts: dict[str, dict[object, float]] = {}
        for decision in space.decisions:
            # The base's own option is the last; most others lose a little, some gain.
            steps = draws.normal(-0.006, 0.006, len(decision.options) - 1)
            if decision.name == "image_px":
                steps = -np.abs(draws.normal(0.015, 0.005, len(steps)))
            added = [*np.cumsum(steps)[::-1], 0.0]
            self._parts[decision.name] = dict(zip(decision.options, added, strict=True))
        self._base = _operations(space.base_at(max(space.params.image_px)))

    def __call__(self, network: Network) -> Score:
        """Its rule's, and its luck."""
        plain = self.without_luck(network)
        draws = np.random.default_rng([self._seed, *f"{network.line} {network.image_px}".encode()])
        accuracy = plain.accuracy + draws.normal(0, self._luck)
        return plain.model_copy(update={"accuracy": float(np.clip(accuracy, 0, 1))})

    def without_luck(self, network: Network) -> Score:
        """Its rule's."""
        choice = self._space.choice(network)
        added = sum(
            # What the base has need not be among the options.
            self._parts[name].get(value, 0.0)
            for name, value in choice.items()
        )
        ratio = _operations(network) / self._base
        return Score(accuracy=float(np.clip(0.88 + added, 0, 1)), ratio=ratio, ms=20 * ratio)


def _operations(network: Network) -> float:
    side, total = network.image_px, 0.0
    for block in network.architecture.blocks:
        out = -(-side // block.stride)
        total += _of_block(block, side**2, out**2)
        side = out
    return total


def _of_block(block: Block, before: int, after: int) -> float:
    """Multiply-adds, of which depthwise ones count three times.

    Args:
        before: pixels of its input.
        after: of its output.
    """
    kernel = block.kernel**2
    if block.operator == "cn":
        return float(after * kernel * block.in_channels * block.channels)
    project = after * block.hidden * block.channels
    squeeze = 500_000 + after * block.hidden if block.squeeze else 0
    if block.operator == "er":
        return float(after * kernel * block.in_channels * block.hidden + project + squeeze)
    expand = before * block.in_channels * block.hidden if block.operator == "ir" else 0
    return float(expand + 3 * after * kernel * block.hidden + project + squeeze)


@dataclass(frozen=True)
class Fitted:
    """Sums over decisions that come close to what was recorded.

    Attributes:
        space: of the search.
        weights: (columns, 2) of accuracy and of the latency's logarithm.
        accuracy_r2: explained variance of networks that were left out.
        ratio_r2: likewise, of the latency's logarithm.
    """

    space: Space
    weights: NDArray[np.float64]
    accuracy_r2: float
    ratio_r2: float

    @classmethod
    def to(cls, space: Space, found: Mapping[Network, Record]) -> Fitted:
        """By ridge regression on which option each decision has.

        Raises:
            MissingDataError: if there are too few.
        """
        sound = {n: record.score for n, record in found.items() if record.score is not None}
        if len(sound) < _FEWEST:
            raise MissingDataError(
                f"{len(sound)} recorded candidates; expected at least {_FEWEST}. "
                f"Run `fieldlens search` first."
            )
        x = np.array([_columns(space, network) for network in sound])
        y = np.array([(score.accuracy, math.log(score.ratio)) for score in sound.values()])
        part = np.random.default_rng(0).permutation(len(x)) % _FOLDS
        left_out = np.empty_like(y)
        for fold in range(_FOLDS):
            is_out = part == fold
            left_out[is_out] = x[is_out] @ _ridge(x[~is_out], y[~is_out])
        r2 = 1 - ((y - left_out) ** 2).sum(axis=0) / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        return cls(space, _ridge(x, y), float(r2[0]), float(r2[1]))

    def __call__(self, network: Network) -> Score:
        """The fit's."""
        accuracy, log_ratio = np.array(_columns(self.space, network)) @ self.weights
        ratio = math.exp(log_ratio)
        return Score(accuracy=float(np.clip(accuracy, 0, 1)), ratio=ratio, ms=ratio)

    def without_luck(self, network: Network) -> Score:
        """It knows none."""
        return self(network)


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    penalty = np.eye(x.shape[1])
    penalty[0, 0] = 0
    found = np.linalg.solve(x.T @ x + penalty, x.T @ y)
    return np.asarray(found, dtype=np.float64)


def _columns(space: Space, network: Network) -> list[float]:
    choice = space.choice(network)
    return [
        1.0,
        *(
            float(choice[decision.name] == option)
            for decision in space.decisions
            for option in decision.options
        ),
    ]


# -- records --------------------------------------------------------------------------------------
def recorded(file: Path, space: Space) -> dict[Network, Record]:
    """What searches of a space have found out; of several lines of a network the last.

    Raises:
        MissingDataError: if there is no file.
    """
    if not file.is_file():
        raise MissingDataError(f"{file}: not there. Run `fieldlens search` first.")
    found = {Network(parse(each.line), each.image_px): each for each in read_records(file)}
    options = {each.name: each.options for each in space.decisions}
    return {
        network: record
        for network, record in found.items()
        if all(value in options[name] for name, value in space.choice(network).items())
        and space.network(space.choice(network)) == network
    }


class _Unasked(BaseException):
    """No study of this controller and seed has come so far; no `Exception`, which a study keeps."""


class _Known(Records):
    """Records of networks, whatever they were made of."""

    def __init__(self, found: Mapping[Network, Record]) -> None:
        self._found = found

    def get(self, network: Network) -> Record | None:
        return self._found.get(network)


def replayed(
    space: Space,
    reward: RewardParams,
    found: Mapping[Network, Record],
    arguments: argparse.Namespace,
) -> None:
    """A row a real study that has come to the asked number of candidates, or nearly so."""
    rows = []
    for controller in arguments.controllers:
        for seed in arguments.seeds:
            own = _study_of(space, reward, found, controller, arguments.candidates, seed)
            values = [each.reward for each in own if each.reward is not None]
            if len(own) >= _LAST and values:
                last = [each.reward for each in own[-_LAST:] if each.reward is not None]
                rows.append(
                    [
                        controller,
                        str(seed),
                        str(len(own)),
                        f"{max(values):.4f}",
                        f"{mean(last):.4f}",
                        str(len({each.network for each in own})),
                        f"{sum(each.record.seconds for each in own) / 60:.0f}",
                    ]
                )
    names = ["controller", "seed", "candidates", "best reward", f"mean of the last {_LAST}"]
    table([*names, "different networks", "minutes"], rows)


def _study_of(
    space: Space,
    reward: RewardParams,
    found: Mapping[Network, Record],
    controller: Controller,
    n: int,
    seed: int,
) -> list[Candidate]:
    from pipelines.search.study import run_study

    own: list[Candidate] = []

    def unasked(network: Network) -> Score:
        raise _Unasked

    with suppress(_Unasked):
        run_study(
            space,
            unasked,
            _Known(found),
            controller,
            n,
            reward=reward,
            seed=seed,
            told=own.append,
        )
    return [each for each in own if not each.baseline]


if __name__ == "__main__":
    sys.exit(main())

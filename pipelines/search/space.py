"""What a search decides: a choice a stage and thing, and the network that choices make.

A factorised hierarchical space: all blocks of a stage are alike, and stages differ. A decision is
an index into its options; a candidate is a value a decision, by name.

References:
    Tan et al. 2019, "MnasNet", section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from pipelines.backbones.architecture import BASES, MULTIPLE, SQUEEZES, Architecture, Stage
from pipelines.config.search import SpaceParams

#: By decision, what was chosen.
Choice = Mapping[str, "str | int | float"]
PX = "image_px"


@dataclass(frozen=True, slots=True)
class Decision:
    """One thing that is decided.

    Attributes:
        name: e.g. ``s4.kernel``, of the stage of index 4.
        options: what it may be, the base's own last.
    """

    name: str
    options: tuple[str | int | float, ...]


@dataclass(frozen=True, slots=True)
class Network:
    """What is measured: an architecture at a side of its input."""

    architecture: Architecture
    image_px: int

    @property
    def line(self) -> str:
        """Of its architecture."""
        return self.architecture.line


@dataclass(frozen=True)
class Space:
    """All networks that a search may come to.

    Attributes:
        base: that weights are inherited from.
        params: which options there are.
    """

    base: Architecture
    params: SpaceParams

    @classmethod
    def of(cls, params: SpaceParams) -> Space:
        """The space that a task's section names."""
        return cls(BASES[params.base], params)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """In the order of the network, the side of its input first; without those of one option."""
        found = [Decision(PX, tuple(sorted(self.params.image_px)))]
        for index, stage in enumerate(self.base.stages):
            found += [
                Decision(f"s{index}.{what}", options)
                for what, options in self._options(stage).items()
            ]
        return tuple(each for each in found if len(each.options) > 1)

    def _options(self, stage: Stage) -> dict[str, tuple[str | int | float, ...]]:
        asked = self.params
        channels = tuple(dict.fromkeys(_channels(stage, share) for share in sorted(asked.widths)))
        if stage.operator == "cn":
            return {"channels": channels}
        found: dict[str, tuple[str | int | float, ...]] = {
            "kernel": tuple(sorted(asked.kernels, reverse=True)),
            "squeeze": (max(SQUEEZES), 0.0) if asked.squeeze else (0.0,),
            "channels": channels,
        }
        if stage.operator == "ir":
            if stage.channels <= asked.fused_up_to:
                found["operator"] = ("er", "ir")
            found["expansion"] = tuple(sorted(asked.expansions))
            least = max(1, stage.repeats - asked.fewer_blocks)
            found["repeats"] = tuple(range(least, stage.repeats + 1))
        return found

    @property
    def size(self) -> int:
        """How many networks there are."""
        return prod(len(each.options) for each in self.decisions)

    def network(self, choice: Choice) -> Network:
        """The network that choices make; what is not decided is the base's."""
        stages = []
        for index, stage in enumerate(self.base.stages):
            own = {
                name: choice[key]
                for name in ("operator", "kernel", "squeeze", "channels", "expansion", "repeats")
                if (key := f"s{index}.{name}") in choice
            }
            whole = {name: getattr(stage, name) for name in Stage.__slots__}
            stages.append(Stage(**{**whole, **own}))
        image_px = choice.get(PX, max(self.params.image_px))
        return Network(Architecture(self.base.base, tuple(stages)), int(image_px))

    def random(self, generator: np.random.Generator) -> Network:
        """A network, each option as likely."""
        return self.network(
            {
                each.name: each.options[generator.integers(len(each.options))]
                for each in self.decisions
            }
        )

    def choice(self, network: Network) -> dict[str, str | int | float]:
        """By which choices a network is made; the inverse of `network`."""
        found: dict[str, str | int | float] = {}
        for decision in self.decisions:
            if decision.name == PX:
                found[PX] = network.image_px
            else:
                stage, what = decision.name[1:].split(".")
                found[decision.name] = getattr(network.architecture.stages[int(stage)], what)
        return found

    def base_at(self, image_px: int) -> Network:
        """The base itself."""
        return Network(self.base, image_px)

    @cached_property
    def smallest(self) -> Network:
        """The one with the least of everything."""
        least = {"kernel": min, "squeeze": min, "operator": max}
        return self.network(
            {
                each.name: _pick(least, each.name.rpartition(".")[2], each.options)
                for each in self.decisions
            }
        )

    @cached_property
    def largest(self) -> Network:
        """The one with the most of everything, plain inverted residuals."""
        return self.network(
            {
                each.name: "ir" if each.name.endswith("operator") else max(each.options)
                for each in self.decisions
            }
        )


def _pick(
    how: Mapping[str, object], what: str, options: Sequence[str | int | float]
) -> str | int | float:
    chosen: str | int | float = max(options) if how.get(what) is max else min(options)
    return chosen


def _channels(stage: Stage, share: float) -> int:
    """A share of a stage's channels, as a multiple of 8 that is no smaller than 0.9 of it.

    References:
        Sandler et al. 2018: ``make_divisible`` of the authors' code.
    """
    wanted = stage.channels * share
    found = max(MULTIPLE, int(wanted + MULTIPLE / 2) // MULTIPLE * MULTIPLE)
    return min(stage.channels, found if found >= 0.9 * wanted else found + MULTIPLE)

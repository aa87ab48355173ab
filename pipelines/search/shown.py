"""What a search shows: figures, and what it found beside the network that it began with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.backbones.architecture import Architecture
from pipelines.config.search import Controller, RewardParams
from pipelines.plots.search import Again, Spot, front_figure, reward_figure
from pipelines.search.cells import Cell
from pipelines.search.run import Elite
from pipelines.search.space import Network
from pipelines.search.study import Candidate

#: Elites with a name in the figure; more would lie upon each other.
_N_NAMED = 10
#: By controller, the candidates of each of its seeds.
Studies = Mapping[Controller, Sequence[Sequence[Candidate]]]


def title_of(network: Network) -> str:
    """For a person: ``mobilenet_v2-1a2b3c, 160 px``."""
    return Cell(backbone=network.line, width=1.0, image_px=network.image_px).title


def fronts(studies: Studies, elites: Sequence[Elite], params: RewardParams, title: str) -> bytes:
    """Accuracy against latency of all that was asked about, a PNG."""
    return front_figure(
        {
            controller: [
                Spot(each.score.accuracy, each.score.ratio)
                for each in every({controller: seeds})
                if not each.baseline and each.score is not None and each.score.refusal is None
            ]
            for controller, seeds in studies.items()
        },
        [
            Again(title_of(each.network), each.accuracy, each.ratios)
            for each in elites[:_N_NAMED]
            if each.again.refusal is None
        ],
        [
            Spot(each.score.accuracy, each.score.ratio, each.baseline)
            for each in baselines(studies)
            if each.score is not None
        ],
        None if params.target_ms is not None else params.target,
        title,
    )


def rewards(studies: Studies, title: str) -> bytes:
    """The reward by the number of candidates, a line a controller, a PNG."""
    known = [each.reward for each in baselines(studies) if each.reward is not None]
    return reward_figure(
        {
            controller: [
                [each.reward for each in candidates if not each.baseline] for candidates in seeds
            ]
            for controller, seeds in studies.items()
        },
        title,
        max(known, default=None),
    )


def every(studies: Studies) -> list[Candidate]:
    """Of all studies, one after another."""
    return [each for seeds in studies.values() for found in seeds for each in found]


def baselines(studies: Studies) -> list[Candidate]:
    """What nobody had to propose, each once."""
    return list({each.baseline: each for each in every(studies) if each.baseline}.values())


def differences(found: Architecture, base: Architecture) -> list[tuple[str, str]]:
    """The stages of both, beside each other: what was found, and the base's where it is another."""
    return [
        (mine.text, "as the base" if mine == its else its.text)
        for mine, its in zip(found.stages, base.stages, strict=True)
    ]

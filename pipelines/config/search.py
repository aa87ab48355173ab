"""Section ``search`` of a task: what `fieldlens search` looks for, and how long.

No stage of the pipeline takes it, so a change of it re-runs none.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config.board import Side
from pipelines.strict_yaml import NotNegative, Positive, Share, Strict

Controller = Literal["reinforce", "tpe", "nsga2", "random"]


class SpaceParams(Strict):
    """Which networks there are: options a stage (`pipelines.search.space`)."""

    base: Literal["mobilenet_v2"] = "mobilenet_v2"
    #: Sides of the input.
    image_px: tuple[Side, ...] = Field(default=(128, 160, 192, 224), strict=False, min_length=1)
    kernels: tuple[Literal[3, 5], ...] = Field(default=(3, 5), strict=False, min_length=1)
    #: Whether blocks may have squeeze-and-excitation, of a quarter of their input's channels.
    squeeze: bool = True
    expansions: tuple[Annotated[int, Field(ge=1, le=6)], ...] = Field(
        default=(3, 4, 6), strict=False, min_length=1
    )
    #: Shares of the base's channels.
    widths: tuple[Annotated[float, Field(gt=0, le=1, strict=False)], ...] = Field(
        default=(0.75, 1.0), strict=False, min_length=1
    )
    #: How many blocks of a stage may be left out; one stays.
    fewer_blocks: Annotated[int, Field(ge=0, le=3)] = 2
    #: Stages of at most so many channels may fuse a block's first two convolutions.
    fused_up_to: Annotated[int, Field(ge=0)] = 32


class RewardParams(Strict):
    """ACC (LAT / T)^w: w is alpha where the target is kept and beta where it is not.

    References:
        Tan et al. 2019, equation 3: -0.07 and -0.07 (soft), 0 and -1 (hard).
    """

    #: T as a share of the reference's latency, or in milliseconds where `target_ms` says so.
    target: Annotated[float, Field(gt=0, le=4, strict=False)] = 0.75
    target_ms: Annotated[float, Field(gt=0, strict=False)] | None = None
    alpha: Annotated[float, Field(ge=-1, le=0, strict=False)] = 0.0
    beta: Annotated[float, Field(ge=-1, le=0, strict=False)] = -1.0


class WarmUpParams(Strict):
    """The supernet's training: the largest, the smallest and some random networks a step."""

    steps: Annotated[int, Field(ge=1)] = 200
    batch_size: Annotated[int, Field(ge=2)] = 32
    #: Random networks a step, beside the largest and the smallest.
    n_random: Annotated[int, Field(ge=0, le=8)] = 2
    learning_rate: Positive = 0.03
    #: Of what a trained model of the task says, in the loss of the largest network; 0 asks none.
    teacher_weight: Share = 0.5


class FinalistParams(Strict):
    """How a network that a line describes is trained: all of it, on images.

    Sides, views, optimiser and the rest are the task's own.
    """

    epochs: Annotated[int, Field(ge=1)] = 16
    learning_rate: Positive = 1e-3
    warmup_fraction: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.1
    #: Factor of the learning rate from each block to the one before it.
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=False)] = 0.95
    #: Of what the task's own trained model says, in the loss; 0 asks none.
    teacher_weight: Share = 0.5


class SearchParams(Strict):
    """A search, from the supernet to the finalists."""

    space: SpaceParams = SpaceParams()
    reward: RewardParams = RewardParams()
    warm_up: WarmUpParams = WarmUpParams()
    #: TPE: at 100 candidates it was ahead of the others (docs/experiments/search.md).
    controller: Controller = "tpe"
    #: Networks that are asked about.
    candidates: Annotated[int, Field(ge=1)] = 300
    #: The best of them, whose latency is measured again.
    elites: Annotated[int, Field(ge=1)] = 20
    #: The best of these, which are trained as the task trains, exported and tested.
    finalists: Annotated[int, Field(ge=0)] = 2
    finalist: FinalistParams = FinalistParams()
    #: Val images that a candidate is asked about; 0 for all.
    val_images: Annotated[int, Field(ge=0)] = 0
    #: Train images by which a candidate's batch norms are estimated anew.
    norm_images: Annotated[int, Field(ge=2)] = 96
    #: Precision in which latency is measured while searching.
    precision: Literal["fp32", "int8"] = "int8"
    #: By which a measured latency may differ from the sum of its blocks', as a share of it.
    table_gap: NotNegative = 0.25

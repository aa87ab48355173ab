"""Int8 files that were tried: how each was made, what it reached, and which one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.serving.bundle import Candidate

#: Classes that ``max_int8_bytes`` of params.yaml is meant for, and what each further one adds to a
#: file: 1,280 int8 weights of the head, its bias and its scale (1,297 bytes from 2 classes to 10).
_CLASSES_WITHIN, _BYTES_A_CLASS = 10, 1300


def max_bytes(stated: int, n_classes: int) -> int:
    """The bound on an int8 file: ``max_int8_bytes`` as stated, and the heads beyond ten classes."""
    return stated + _BYTES_A_CLASS * max(0, n_classes - _CLASSES_WITHIN)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the first output of an int8 file is worth beside that of fp32, as its kind sees it.

    Attributes:
        agreement: share of the answers that are the same, in [0, 1].
        metrics: of the int8 file, by name.
        missed: the bounds that it does not hold, each in a few words.
    """

    agreement: float
    metrics: dict[str, float]
    missed: tuple[str, ...]


Judge = Callable[[NDArray[np.float32]], Judgement]
#: Makes the judge of a model from the first output of fp32.
JudgeMaker = Callable[[NDArray[np.float32]], Judge]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an int8 file is made.

    Attributes:
        model: float ONNX bytes, rewritten by the remedies so far.
        calibrator: of `quantize.CALIBRATORS`, or `WEIGHTS_ALONE`.
        is_exact: whether sums are made independent of their order.
    """

    model: bytes
    calibrator: str = "minmax"
    float_nodes: tuple[str, ...] = ()
    is_exact: bool = False


#: In the place of a calibrator: activations are float32, and have no ranges.
WEIGHTS_ALONE = "none"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An int8 file, how it was made, what it reached, and the bounds that it missed, in words.

    Attributes:
        is_slow: whether it holds its bounds and is slower than it must be.
    """

    candidate: Candidate
    recipe: Recipe
    model: bytes
    missed: tuple[str, ...] = ()
    is_slow: bool = False


def best_of(attempts: Sequence[Attempt], most_bytes: int) -> Attempt | None:
    """The attempt with the least noise, among those that are small enough if there are any.

    Noise, not agreement: two hundred val images count flips in steps of half a percent, so that
    the best of several agreements is mostly luck (docs/experiments/int8.md).
    """

    def rank(attempt: Attempt) -> tuple[bool, float, float]:
        reached = attempt.candidate
        return reached.size_bytes <= most_bytes, reached.sqnr_db, reached.agreement

    return max(attempts, key=rank, default=None)


def with_choice(attempts: Sequence[Attempt], chosen: Attempt) -> list[Attempt]:
    """The attempts, one of them marked as chosen."""
    return [
        replace(a, candidate=a.candidate.model_copy(update={"is_chosen": a is chosen}))
        for a in attempts
    ]

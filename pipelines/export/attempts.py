"""Int8 files that were tried: what each reached, which one is chosen, and whether it is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.classification import sqnr_db
from pipelines.serving.bundle import Candidate, Serving

if TYPE_CHECKING:
    # The gate asks for `max_bytes`, and depends on no section but its own.
    from pipelines.config.export import ExportParams


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

    @classmethod
    def of(
        cls,
        agreement: float,
        metrics: Mapping[str, float],
        least: float,
        what: str = "agreement with fp32",
    ) -> Self:
        """By a bound on agreement alone.

        Args:
            what: the agreement is, in words.
        """
        same = round(agreement, 6)
        missed = () if same >= least else (f"{what} {same:.1%} (bound {least:.1%})",)
        return cls(same, {name: round(value, 6) for name, value in metrics.items()}, missed)


Judge = Callable[[NDArray[np.float32]], Judgement]
#: Makes the judge of a model from the first output of fp32.
JudgeMaker = Callable[[NDArray[np.float32]], Judge]


def reached(
    outputs: NDArray[np.float32],
    size_bytes: int,
    reference: NDArray[np.float32],
    judge: Judge,
    params: ExportParams,
    *,
    remedy: str,
    calibrator: str,
    float_nodes: tuple[str, ...],
) -> tuple[Candidate, tuple[str, ...]]:
    """What an int8 file reached on val, and the bounds that it missed, in words.

    Args:
        outputs: first of the file, (n, ...).
        reference: the same of fp32.
        judge: of the kind, for that reference.
        params: with the bound on bytes.
        remedy: how the file was made, as `Candidate` says it; likewise the rest.
    """
    judged, most = judge(outputs), max_bytes(params.max_int8_bytes, reference.shape[1])
    missed = judged.missed
    if size_bytes > most:
        missed += (f"{size_bytes:,} bytes (bound {most:,})",)
    candidate = Candidate(
        remedy=remedy,
        calibrator=calibrator,
        float_nodes=float_nodes,
        agreement=judged.agreement,
        metrics=judged.metrics,
        sqnr_db=round(sqnr_db(reference, outputs), 3),
        size_bytes=size_bytes,
        holds_bounds=not missed,
        is_chosen=False,
    )
    return candidate, missed


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


def serving(
    best: Candidate,
    missed: Sequence[str],
    params: ExportParams,
    *,
    is_slow: bool,
    is_refit: bool,
    is_float_inside: bool = False,
) -> Serving:
    """int8 if it keeps its bounds and is not slower. No time is written: it is the machine's.

    Args:
        best: int8 file that there is.
        missed: its bounds, in words.
        params: with the bound on time.
        is_slow: whether it misses that.
        is_refit: whether the network was trained on val.
        is_float_inside: whether its weights alone are bytes.
    """
    where = "the val split"
    if is_refit:
        where += ", which the refitted network was trained on"
    if missed:
        return Serving(
            precision="fp32",
            reason=f"no int8 file kept its bounds on {where}; the best missed: {'; '.join(missed)}",
        )
    if is_slow:
        return Serving(
            precision="fp32",
            reason=f"int8 kept its bounds but was not {params.min_speedup:g} times as fast as fp32 "
            f"on one thread of the machine that exported it",
        )
    pace = f"was at least {params.min_speedup:g} times as fast as fp32 on one thread"
    if is_float_inside:
        pace = "runs fp32's operators on weights that are stored as bytes"
    return Serving(
        precision="int8",
        reason=f"it kept its bounds on {where} (agreement {best.agreement:.1%}) and {pace}",
    )

"""The cells of a board as trials of Ray Tune: an engine of `pipelines.search.board`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipelines.config.train import TrainParams
from pipelines.scale.cluster import joined
from pipelines.scale.sweeps import Halving, Trial, sweep, tell_step
from pipelines.search.board import CellFunction, Engine
from pipelines.search.cells import Cell, CellResult, Outcome
from pipelines.training.fit import EpochLog
from pipelines.training.job import Observer

#: Epochs before the first look: one tells of the learning rate's warm-up alone.
_FIRST = 3


@contextmanager
def ray_engine(
    n_workers: int | None, address: str | None, halving: Halving | None = None
) -> Iterator[Engine]:
    """What runs cells on a cluster, one thread each, for a block.

    Args:
        n_workers: cells at a time; None for one a free processor.
        address: as `cluster.joined` takes it.
        halving: by what cells are stopped; None lets each run to its end.

    Raises:
        ConfigError: as `cluster.joined` says.
    """
    with joined(n_workers, address) as cluster:

        def run(
            objective: CellFunction,
            cells: Sequence[Cell],
            begun: Callable[[Cell], None],
            done: Callable[[Outcome], None],
        ) -> None:
            sweep(
                _Asked(objective, None if halving is None else halving.metric),
                [cell.model_dump() for cell in cells],
                cluster,
                begun=lambda question: begun(Cell.model_validate(question)),
                done=lambda trial: done(_outcome(trial, halving)),
                halving=halving,
            )

        yield run


def halving_of(train: TrainParams) -> Halving:
    """Stops cells by the value of val that picks the epoch."""
    n_epochs = train.head_phase.epochs + train.tail_phase.epochs
    return Halving(
        metric=train.monitor,
        mode="min" if train.monitor == "val_loss" else "max",
        max_steps=n_epochs,
        first=min(_FIRST, n_epochs),
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """An objective, as `sweep` asks it; there and back go plain values.

    Attributes:
        metric: that is told of each epoch; None for none.
    """

    objective: CellFunction
    metric: str | None

    def __call__(self, question: dict[str, Any]) -> dict[str, object]:
        cell = Cell.model_validate(question)
        observer = None if self.metric is None else _Epochs(self.metric)
        return {"result": self.objective(cell, observer).model_dump_json()}


class _Epochs(Observer):
    def __init__(self, metric: str) -> None:
        self._metric = metric

    def epoch(self, log: EpochLog, *, is_refit: bool) -> None:
        # A refit has no val, and follows on a training that was good enough.
        if not is_refit:
            tell_step(log.epoch, {self._metric: log.val[self._metric]})


def _outcome(trial: Trial, halving: Halving | None) -> Outcome:
    cell = Cell.model_validate(trial.question)
    if trial.answer is not None:
        return Outcome(
            cell=cell, result=CellResult.model_validate_json(str(trial.answer["result"]))
        )
    if trial.stopped is not None and halving is not None:
        epoch, value = trial.stopped
        share = f"best {1 / halving.factor:.0%} of the cells that came so far before it"
        words = (
            f"stopped after epoch {epoch}: {halving.metric} {value:.3f} is not among the {share}"
        )
        return Outcome(cell=cell, stopped=words)
    return Outcome(cell=cell, error=trial.error)

"""What is known of each epoch of a training."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class EpochLog:
    """One row of history.csv; losses are means over images, in nats.

    Attributes:
        epoch: from 1, through all phases.
        phase: ``head`` or ``tail``.
        learning_rate: the head's, at the end of the epoch.
        train_loss: with label smoothing, class weights and mixup as asked for.
        val_loss: plain cross-entropy.
        val_accuracy: in [0, 1].
        val_macro_f1: in [0, 1].
    """

    epoch: int
    phase: str
    learning_rate: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float


def best_values(history: Sequence[EpochLog], monitor: str) -> dict[str, float]:
    """Val metrics of the epoch that `fit` kept.

    Args:
        history: not empty.
        monitor: name of the value that picks; the lower val loss settles ties.
    """
    sign = -1 if monitor == "val_loss" else 1
    best = max(history, key=lambda log: (sign * getattr(log, monitor), -log.val_loss))
    return {name: getattr(best, name) for name in ("val_loss", "val_accuracy", "val_macro_f1")}


def history_csv(history: Sequence[EpochLog]) -> str:
    """The text of history.csv, numbers with six digits.

    Args:
        history: a row an epoch.
    """
    buffer = io.StringIO()
    names = [field.name for field in fields(EpochLog)]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for log in history:
        row = [getattr(log, name) for name in names]
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    return buffer.getvalue()

"""What is known of each epoch of a training."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

#: What is known of an epoch by the val split.
VAL_VALUES = ("val_loss", "val_accuracy", "val_macro_f1")


@dataclass(frozen=True, slots=True)
class EpochLog:
    """One epoch; losses are means over images, in nats. What is of val is NaN without a val split.

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

    def __str__(self) -> str:
        """What a terminal shows of it."""
        words = f"epoch {self.epoch} ({self.phase}): train loss {self.train_loss:.3f}"
        if math.isnan(self.val_loss):
            return words
        return (
            f"{words}, val loss {self.val_loss:.3f}, accuracy {self.val_accuracy:.3f}, "
            f"macro-F1 {self.val_macro_f1:.3f}"
        )


def best_values(history: Sequence[EpochLog], monitor: str) -> dict[str, float]:
    """Val metrics of the epoch that `fit` kept.

    Args:
        history: not empty.
        monitor: name of the value that picks; the lower val loss settles ties.
    """
    sign = -1 if monitor == "val_loss" else 1
    best = max(history, key=lambda log: (sign * getattr(log, monitor), -log.val_loss))
    return {name: getattr(best, name) for name in VAL_VALUES}


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

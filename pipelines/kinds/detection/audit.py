"""The half of `detection` that `audit` asks: who is in a picture, told without looking at anybody.

Where boxes lie cannot be told from the facts of a file, but which classes a picture shows may be; a
detector that learns that from a border would pass for one that sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry
from pipelines.kinds.blind import Features, Fold, folds_by_group, forest, out_of_fold, probe
from pipelines.kinds.detection.boxes import true_boxes
from pipelines.metrics.detection import presence, true_counts
from pipelines.metrics.intervals import Draws, draw, interval_of, rounded_interval
from pipelines.serving.trust import Interval

#: Of an area under the ROC curve, where nothing is known.
_CHANCE = 0.5


class AuditedDetection:
    """Blind models answer with probabilities that a picture shows a class."""

    metric: str = "presence"
    constant: str = "the same for all"

    def blind(
        self,
        entries: Sequence[Entry],
        labels: Sequence[str],
        raw_dir: Path,
        n_folds: int,
        seed: int,
        resamples: int,
    ) -> BlindPresence:
        """Folds by group, balanced by the class that comes nearest to being in half of all."""
        is_there = true_counts(true_boxes(entries, labels), len(labels)) > 0
        groups = np.asarray([entry.group for entry in entries])
        nearest = is_there[:, np.abs(is_there.mean(axis=0) - 0.5).argmin()].astype(np.int64)
        can_balance = all(len(set(groups[nearest == side])) > 1 for side in (0, 1))
        by = (nearest, 2) if can_balance else (np.zeros_like(nearest), 1)
        folds = folds_by_group(*by, groups, n_folds, seed)
        return BlindPresence(is_there, folds, seed, draw(groups, resamples, seed))


@dataclass(frozen=True, slots=True)
class BlindPresence:
    """What all audits of a detection share.

    Attributes:
        is_there: (n, c) whether an image shows a class.
        folds: rows to learn from and rows to answer, by group.
        seed: of forests.
        draws: resamples of groups.
    """

    is_there: NDArray[np.bool_]
    folds: list[Fold]
    seed: int
    draws: Draws

    @property
    def floor(self) -> float:
        """An area of a half."""
        return _CHANCE

    @property
    def class_index(self) -> None:
        """No image has one class."""
        return None

    def told(self, features: Features, by: Literal["forest", "probe"]) -> NDArray[np.float64]:
        """(n, c) probabilities, class by class."""
        make = probe if by == "probe" else partial(forest, self.seed)
        each = [
            out_of_fold(make, features, own.astype(np.int64), 2, self.folds)[:, 1]
            for own in self.is_there.T
        ]
        return np.stack(each, axis=1)

    def interval(self, answers: NDArray[Any]) -> Interval:
        """Mean area over the classes that some pictures show and others do not."""
        values = presence(self.draws, self.is_there, answers)
        found = interval_of(self.draws, values)
        # Every picture shows every class: nothing can be told, and nothing given away.
        return rounded_interval(found or Interval(value=_CHANCE, low=0, high=1))

    def chance(self) -> float:
        """A half."""
        return _CHANCE

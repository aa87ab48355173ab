"""The half of `classification` that `audit` asks: how well classes are told, in macro-F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry, class_index_of
from pipelines.errors import DataError
from pipelines.kinds.blind import Features, Fold, folds_by_group, forest, out_of_fold, probe
from pipelines.metrics.classification import DECIMALS, macro_f1
from pipelines.metrics.intervals import Draws, by_counts, draw, macro_f1s, rounded_interval
from pipelines.serving.trust import Interval


class AuditedClassification:
    """Blind models answer with probabilities of the classes."""

    metric: str = "macro_f1"
    constant: str = "majority class"

    def blind(
        self,
        entries: Sequence[Entry],
        labels: Sequence[str],
        raw_dir: Path,
        n_folds: int,
        seed: int,
        resamples: int,
    ) -> BlindClasses:
        """Folds by group, stratified by label."""
        class_index, groups = class_index_of(entries, labels), [entry.group for entry in entries]
        return blind(class_index, len(labels), groups, n_folds, seed, resamples)


@dataclass(frozen=True, slots=True)
class BlindClasses:
    """What all audits of a classification share.

    Attributes:
        class_index: (n,) in [0, n_classes).
        folds: rows to learn from and rows to answer, by group.
        seed: of forests.
        draws: resamples of groups.
    """

    class_index: NDArray[np.int64]
    n_classes: int
    folds: list[Fold]
    seed: int
    draws: Draws

    @property
    def floor(self) -> float:
        """1/c: answers drawn by frequency p have precision and recall p, so F1 p, of each class."""
        return 1 / self.n_classes

    def told(self, features: Features, by: Literal["forest", "probe"]) -> NDArray[np.float64]:
        """(n, c) probabilities."""
        make = probe if by == "probe" else partial(forest, self.seed)
        return out_of_fold(make, features, self.class_index, self.n_classes, self.folds)

    def interval(self, answers: NDArray[Any]) -> Interval:
        """Macro-F1 of the likeliest classes."""
        found = by_counts(
            self.draws, self.class_index, answers.argmax(axis=1), self.n_classes, macro_f1s
        )
        if found is None:
            raise DataError("macro-F1 is not defined: there is no image.")
        return rounded_interval(found)

    def chance(self) -> float:
        """Macro-F1 of always answering the majority class."""
        majority = np.bincount(self.class_index).argmax()
        answers = np.full_like(self.class_index, majority)
        return round(macro_f1(self.class_index, answers, self.n_classes), DECIMALS)


def blind(
    class_index: NDArray[np.int64],
    n_classes: int,
    groups: Sequence[str],
    n_folds: int,
    seed: int,
    resamples: int,
) -> BlindClasses:
    """Folds as `folds_by_group` makes them, and resamples for the intervals.

    Raises:
        DataError: if a class has fewer than two groups.
    """
    names = np.asarray(groups)
    folds = folds_by_group(class_index, n_classes, names, n_folds, seed)
    return BlindClasses(class_index, n_classes, folds, seed, draw(names, resamples, seed))

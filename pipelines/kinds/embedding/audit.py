"""The half of `embedding` that `audit` asks: how often blind features lead to the same identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry
from pipelines.errors import DataError
from pipelines.kinds.blind import Features, Fold, folds_by_group
from pipelines.kinds.embedding.truth import known_of
from pipelines.metrics.classification import DECIMALS
from pipelines.metrics.intervals import Draws, by_mean, draw, rounded_interval
from pipelines.metrics.retrieval import Known, check_asked, expected_recall
from pipelines.serving.trust import Interval


class AuditedEmbedding:
    """A blind model is a distance: of colours, of a thumbnail, of facts of the file."""

    metric: str = "recall_at_1"
    constant: str = "mean embedding"

    def blind(
        self,
        entries: Sequence[Entry],
        labels: Sequence[str],
        raw_dir: Path,
        n_folds: int,
        seed: int,
        resamples: int,
    ) -> BlindVectors:
        """Pictures to be asked for, and those that may be found."""
        known, groups = known_of(entries), np.array([entry.group for entry in entries])
        check_asked(known, f"{raw_dir}: train and val")
        folds = folds_by_group(np.zeros(len(groups), np.int64), 1, groups, n_folds, seed)
        return BlindVectors(known, folds, draw(groups, resamples, seed))


@dataclass(frozen=True, slots=True)
class BlindVectors:
    """What all audits of an embedding share.

    Attributes:
        known: (n, 2) identities and occasions.
        folds: by group, for what has to be learned to be blind: the source of a picture.
        draws: resamples of identities.
    """

    known: Known
    folds: list[Fold]
    draws: Draws
    class_index: None = None

    @property
    def floor(self) -> float:
        """What is reached where all pictures are equally far."""
        return self.chance()

    def told(self, features: Features, by: Literal["forest", "probe"]) -> NDArray[np.float64]:
        """(n, d) vectors whose Euclidean distance counts. Nothing is learned, as no label is.

        Of the backbone's embeddings the direction, of other features columns of one spread.
        """
        values = np.asarray(features, np.float64)
        if by == "probe":
            lengths = np.linalg.norm(values, axis=1, keepdims=True)
            directions: NDArray[np.float64] = values / np.maximum(lengths, 1e-12)
            return directions
        spread = values.std(axis=0)
        scaled: NDArray[np.float64] = (values - values.mean(axis=0)) / np.where(spread, spread, 1.0)
        scaled /= np.sqrt(max(1, scaled.shape[1]))
        return scaled

    def interval(self, answers: NDArray[Any]) -> Interval:
        """Recall at 1 among train and val."""
        found = by_mean(self.draws, expected_recall(_far(answers), self.known))
        if found is None:
            raise DataError("recall is not defined: no identity has two pictures.")
        return rounded_interval(found)

    def chance(self) -> float:
        """Recall at 1 where every picture has the same vector."""
        n = len(self.known)
        return round(float(np.nanmean(expected_recall(np.zeros((n, n)), self.known))), DECIMALS)


def _far(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, n) squared Euclidean distances."""
    squares = (vectors**2).sum(axis=1)
    far: NDArray[np.float64] = squares[:, np.newaxis] + squares - 2 * vectors @ vectors.T
    return np.maximum(far, 0)

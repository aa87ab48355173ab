"""What `audit` asks of a kind, and who answers: what a model that sees next to nothing reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry
from pipelines.kinds.blind import Features, Fold
from pipelines.kinds.classification.audit import AuditedClassification
from pipelines.kinds.detection.audit import AuditedDetection
from pipelines.kinds.embedding.audit import AuditedEmbedding
from pipelines.kinds.segmentation.audit import AuditedSegmentation
from pipelines.serving.trust import Interval


class Blind(Protocol):
    """What all audits of a task share; n images."""

    @property
    def folds(self) -> list[Fold]:
        """Rows to learn from and rows to answer, by group."""

    @property
    def floor(self) -> float:
        """What answers reach that are drawn blindly: an interval from there up says nothing."""

    @property
    def class_index(self) -> NDArray[np.int64] | None:
        """(n,) where `told` gives (n, c) probabilities of classes: labels may then be doubted."""

    def told(self, features: Features, by: Literal["forest", "probe"]) -> NDArray[Any]:
        """(n, ...) answers to each image by a model that saw none of its group.

        Args:
            features: (n, d), of next to nothing; for the probe, the frozen backbone's embeddings.
        """

    def interval(self, answers: NDArray[Any]) -> Interval:
        """What answers are worth, more being better, with a 95 % interval over groups."""

    def chance(self) -> float:
        """What `AuditedKind.constant` reaches."""


class AuditedKind(Protocol):
    """A kind, as far as `audit` must know it."""

    #: What answers are measured in, by its key in metrics.json.
    metric: str
    #: The best answer that is the same for all images, in words, e.g. ``mean mask``.
    constant: str

    def blind(
        self,
        entries: Sequence[Entry],
        labels: Sequence[str],
        raw_dir: Path,
        n_folds: int,
        seed: int,
        resamples: int,
    ) -> Blind:
        """Folds, and what is to be told.

        Args:
            entries: of train and val.
            n_folds: wanted; fewer where there are fewer groups.
            resamples: for the intervals.

        Raises:
            DataError: if there are too few groups.
        """


KINDS: Mapping[str, AuditedKind] = {
    "classification": AuditedClassification(),
    "detection": AuditedDetection(),
    "segmentation": AuditedSegmentation(),
    "embedding": AuditedEmbedding(),
}

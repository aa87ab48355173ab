"""The half of `classification` that training asks: classes as numbers, cross-entropy in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.backbones.heads import Classifier, make_classifier
from pipelines.data.manifest import Entry, class_index_of
from pipelines.metrics.classification import accuracy, macro_f1

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams


class TrainedClassification:
    """A linear head, or one with hidden layers, on the pooled features."""

    values: tuple[str, ...] = ("val_loss", "val_accuracy", "val_macro_f1")
    has_place: bool = False
    taught_by: str | None = "probabilities"

    def network(
        self,
        backbone: str,
        width: float,
        n_labels: int,
        hidden: Sequence[int],
        dropout: float,
        cut: int | None,
        seed: int,
    ) -> Classifier:
        """A logit a label."""
        return make_classifier(
            backbone, width, n_classes=n_labels, hidden=hidden, dropout=dropout, cut=cut, seed=seed
        )

    def truth(
        self, entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path
    ) -> NDArray[np.int64]:
        """(n,) numbers of the classes."""
        return class_index_of(entries, labels)

    def in_view(
        self, truth: NDArray[np.int64], geometry: NDArray[np.float64], side_px: int
    ) -> NDArray[np.int64]:
        """The same class in every view."""
        return truth

    def mates(self, truth: NDArray[np.int64]) -> None:
        """Each image counts for itself."""

    def untaught(self, truth: NDArray[np.int64], labels: Sequence[str]) -> list[str]:
        """Classes without an image."""
        return [label for index, label in enumerate(labels) if index not in truth]

    def criterion(
        self, truth: NDArray[np.int64], n_labels: int, params: TrainParams
    ) -> CrossEntropy:
        """Cross-entropy; a class may weigh as much as another, however rare it is."""
        is_weighted = params.balance == "class_weights"
        weights = class_weights(truth, n_labels) if is_weighted else None
        return CrossEntropy(n_labels, params.label_smoothing, weights)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Of probabilities, so that mixup may blend two classes.

    Attributes:
        n_classes: number of logits.
        smoothing: share of the target that all classes have in common, in [0, 1).
        weights: (n_classes,) of each class; None where all weigh the same.
    """

    n_classes: int
    smoothing: float = 0.0
    weights: Tensor | None = None

    def targets(self, truth: Tensor) -> Tensor:
        """(n,) classes as (n, n_classes) probabilities."""
        return functional.one_hot(truth, self.n_classes).float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over images, with label smoothing and class weights."""
        weights = None if self.weights is None else self.weights.to(outputs.device)
        return functional.cross_entropy(
            outputs, targets, label_smoothing=self.smoothing, weight=weights
        )

    def measured(self, outputs: Tensor, truth: NDArray[np.int64]) -> dict[str, float]:
        """Plain cross-entropy, accuracy and macro-F1."""
        predicted = outputs.argmax(dim=1).numpy()
        return {
            "val_loss": functional.cross_entropy(outputs, torch.from_numpy(truth)).item(),
            "val_accuracy": accuracy(truth, predicted),
            "val_macro_f1": macro_f1(truth, predicted, outputs.shape[1]),
        }


def class_weights(class_index: NDArray[np.int64], n_classes: int) -> Tensor:
    """Weights that let each class count the same; their mean over images is 1.

    Args:
        class_index: (n,) of the train split.
        n_classes: number of classes, each of which occurs.

    References:
        scikit-learn, ``compute_class_weight("balanced")``: n / (n_classes * count).
    """
    counts = np.bincount(class_index, minlength=n_classes)
    return torch.tensor(len(class_index) / (n_classes * np.maximum(counts, 1)), dtype=torch.float32)

"""What training asks of a kind, and who answers: truth, head, loss, and values of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipelines.backbones.heads import Classifier
from pipelines.data.manifest import Entry
from pipelines.kinds.classification.train import TrainedClassification
from pipelines.kinds.detection.train import TrainedDetection
from pipelines.kinds.embedding.train import TrainedEmbedding
from pipelines.kinds.segmentation.train import TrainedSegmentation

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams


class Criterion(Protocol):
    """What a training strives for."""

    def targets(self, truth: Tensor) -> Tensor:
        """A batch's truth as `loss` takes it; mixup blends it.

        Args:
            truth: (n, ...) as `TrainedKind.truth`, or `TrainedKind.in_view` of it.
        """

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """A mean over the batch, () float32.

        Args:
            outputs: (n, ...) of the head, float32; targets lie on their device.
        """

    def measured(self, outputs: Tensor, truth: NDArray[Any]) -> dict[str, float]:
        """The val split's values, under the names of `TrainedKind.values`.

        Args:
            outputs: (n, ...) of the head, float32, on the CPU.
            truth: of the same plain views.
        """


@runtime_checkable
class BeginsWithData(Protocol):
    """A criterion that fits the head to the train split before its first step."""

    def begin(
        self,
        model: Classifier,
        truth: NDArray[Any],
        embeddings: Callable[[], NDArray[np.float32]],
    ) -> None:
        """Change the head in place, and take from it what the loss needs.

        Args:
            truth: (n, ...) of the train split in plain views.
            embeddings: gives (n, d) of the same, of the untrained network.
        """


@runtime_checkable
class TaughtByVectors(Protocol):
    """A criterion whose teachers give vectors, and no probabilities of labels."""

    def related(
        self, outputs: Tensor, vectors: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """What network and teacher say of the same batch, in a form that can be compared.

        Args:
            outputs: (n, ...) of the head, float32.
            vectors: (n, d) of the teacher, of unit length.
            temperature: of the distillation, at least 1.

        Returns:
            (n, m) the network's logits, and (n, m) the teacher's probabilities at the temperature.
        """


class TrainedKind(Protocol):
    """A kind, as far as training must know it."""

    #: Columns of history.csv that val fills: `val_loss`, and others that are better when higher.
    values: tuple[str, ...]
    #: Whether the truth has a place in the picture, so that a view moves it.
    has_place: bool
    #: What a teacher gives of a picture: ``probabilities`` or ``vectors``; None: there are none.
    taught_by: str | None

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
        """The network, untrained; a head on maps says on which taps it stands.

        Args:
            width: multiplier of the backbone's channels.
            hidden: widths of the head's hidden layers.
            dropout: of the head, in [0, 1).
            cut: first block of the tail; None for the kind's default.
            seed: draws the weights; the global generator is left as it was.
        """

    def truth(self, entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path) -> NDArray[Any]:
        """(n, ...) what is true of each image; where it has a place, in px of the upright picture.

        Args:
            labels: in the order of the model's outputs.
        """

    def in_view(self, truth: NDArray[Any], geometry: NDArray[Any], side_px: int) -> NDArray[Any]:
        """One image's truth as a view shows it; not asked where `has_place` is false.

        Args:
            truth: of one image.
            geometry: (3, 3), from px of the upright picture to px of the view.
            side_px: of the view.
        """

    def mates(self, truth: NDArray[Any]) -> NDArray[np.int64] | None:
        """(n,) images with one number are drawn into one batch, some at a time; None: any are.

        Args:
            truth: of the train split.
        """

    def untaught(self, truth: NDArray[Any], labels: Sequence[str]) -> list[str]:
        """Labels of which the train split shows nothing: a model would answer with another."""

    def criterion(self, truth: NDArray[Any], n_labels: int, params: TrainParams) -> Criterion:
        """The loss.

        Args:
            truth: of the train split.

        Raises:
            ConfigError: if params ask for what this kind has not.
        """


KINDS: Mapping[str, TrainedKind] = {
    "classification": TrainedClassification(),
    "detection": TrainedDetection(),
    "segmentation": TrainedSegmentation(),
    "embedding": TrainedEmbedding(),
}

"""The half of `embedding` that training asks: a linear head and a contrastive loss.

No weight belongs to an identity: the loss compares the pictures of a batch, so that a network is
made for identities that come later, and nothing of those of the training is left in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipelines.backbones.heads import Classifier, make_head, make_network
from pipelines.backbones.spec import backbone
from pipelines.data.manifest import Entry
from pipelines.errors import ConfigError
from pipelines.kinds.embedding.truth import known_of
from pipelines.metrics.retrieval import map_at_r, recall_at
from pipelines.serving.embedding import distances

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams

#: Length of the vector: 256 bytes a picture of a gallery in half precision.
DIMENSIONS = 128
#: By which cosines are divided, as in the paper (`Contrastive`).
_TEMPERATURE = 0.1


#: Share of the mean variance that is added to each, so that the smallest, and with them the noise
#: of int8, are not blown up (docs/experiments/embedding.md).
_SHRINK = 1.0
#: Directions with less of the largest spread are rounding.
_LEAST_SPREAD = 1e-3


class TrainedEmbedding:
    """A linear head, or one with hidden layers, on the pooled features."""

    values: tuple[str, ...] = ("val_loss", "val_recall_at_1", "val_map_at_r")
    has_place: bool = False
    taught_by: str | None = "vectors"

    def network(
        self,
        backbone_name: str,
        width: float,
        n_labels: int,
        hidden: Sequence[int],
        dropout: float,
        cut: int | None,
        seed: int,
    ) -> Classifier:
        """A vector, whose length the loss and the exported file make 1."""
        network = backbone(backbone_name, width)

        def head() -> nn.Sequential:
            layers = make_head(network.n_features, DIMENSIONS, hidden, dropout)
            last = layers[-1]
            assert isinstance(last, nn.Linear)
            # Keeps distances as far as so few numbers can: the backbone's own are a good start.
            nn.init.orthogonal_(last.weight)
            return layers

        return make_network(network, head, cut=cut, seed=seed)

    def truth(
        self, entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path
    ) -> NDArray[np.int64]:
        """(n, 2) identities and occasions as numbers that mean the same in all splits."""
        return known_of(entries)

    def in_view(
        self, truth: NDArray[np.int64], geometry: NDArray[np.float64], side_px: int
    ) -> NDArray[np.int64]:
        """The same identity in every view."""
        return truth

    def mates(self, truth: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pictures of one identity."""
        return truth[:, 0]

    def untaught(self, truth: NDArray[np.int64], labels: Sequence[str]) -> list[str]:
        """There is no label."""
        return []

    def criterion(
        self, truth: NDArray[np.int64], n_labels: int, params: TrainParams
    ) -> Contrastive:
        """The loss, without what blends or weighs classes."""
        for key, usual in (("mixup_alpha", 0.0), ("label_smoothing", 0.0), ("balance", "none")):
            if getattr(params, key) != usual:
                raise ConfigError(
                    f"params.yaml: train.{key}: an embedding has no classes to blend or to weigh; "
                    f"expected {usual} (got {getattr(params, key)})."
                )
        return Contrastive(_TEMPERATURE)


def whitening(
    embeddings: NDArray[np.float32], n_most: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weight (k, d) and bias (k,) that give k principal components about one spread.

    Args:
        embeddings: (n, d).
        n_most: bound on k, as is n - 1.
    """
    values = embeddings.astype(np.float64)
    mean = values.mean(axis=0)
    _, spread, directions = np.linalg.svd(values - mean, full_matrices=False)
    n_kept = min(n_most, int((spread > _LEAST_SPREAD * spread[0]).sum()))
    spread = spread[:n_kept]
    weight = directions[:n_kept] / np.sqrt(spread**2 + _SHRINK * (spread**2).mean())[:, np.newaxis]
    # Which way a direction points is the library's choice: here its largest part is positive.
    largest = np.abs(weight).argmax(axis=1)
    weight *= np.sign(weight[np.arange(n_kept), largest])[:, np.newaxis]
    # Vectors of about unit length, so that the loss sees steps of a usual size.
    weight *= np.sqrt(len(values) / n_kept)
    return weight, -weight @ mean


@dataclass(frozen=True, slots=True)
class Contrastive:
    """Supervised contrastive loss: which of a batch are of the same identity?

    Attributes:
        temperature: by which cosines are divided.

    References:
        Khosla et al. 2020, "Supervised contrastive learning", equation 2.
    """

    temperature: float

    def begin(
        self,
        model: Classifier,
        truth: NDArray[np.int64],
        embeddings: Callable[[], NDArray[np.float32]],
    ) -> None:
        """The head gives the train split's principal directions, each with the same spread.

        So that a few directions in which all pictures differ most, light and pose among them, do
        not decide what is near. A head with hidden layers begins as it was drawn.

        References:
            Jégou and Chum 2012, "Negative evidences and co-occurrences in image retrieval: the
            benefit of PCA and whitening".
        """
        head = model.head
        assert isinstance(head, nn.Sequential)
        if len(head) > 2:
            return
        last = head[-1]
        assert isinstance(last, nn.Linear)
        weight, bias = whitening(embeddings(), DIMENSIONS)
        with torch.no_grad():
            last.weight[: len(weight)] = torch.from_numpy(weight).to(last.weight)
            last.weight[len(weight) :] = 0
            last.bias[: len(bias)] = torch.from_numpy(bias).to(last.bias)
            last.bias[len(bias) :] = 0

    def targets(self, truth: Tensor) -> Tensor:
        """(n,) identities."""
        return truth[:, 0]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean over the images with another of their identity in the batch; 0 where none has."""
        vectors = functional.normalize(outputs, dim=1)
        itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        likeness = (vectors @ vectors.T / self.temperature).masked_fill(itself, -torch.inf)
        log_shares = likeness.log_softmax(dim=1).masked_fill(itself, 0.0)
        is_same = (targets[:, None] == targets[None]) & ~itself
        n_same = is_same.sum(dim=1)
        of_each = -(log_shares * is_same).sum(dim=1) / n_same.clamp(min=1)
        return of_each.sum() / (n_same > 0).sum().clamp(min=1)

    def related(
        self, outputs: Tensor, vectors: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        """(n, n - 1) how like each picture is to the others of the batch.

        So a teacher's vectors may have any length, and no projection of either side is learned.

        References:
            Passalis and Tefas 2018, "Learning deep representations with probabilistic knowledge
            transfer": the divergence of conditional probabilities over a batch, cosines its kernel;
            here a softmax of them, as in the loss.
        """
        own, theirs = (
            _without_itself(unit @ unit.T / self.temperature)
            for unit in (functional.normalize(outputs, dim=1), vectors)
        )
        return own, (theirs / temperature).softmax(dim=1)

    def measured(self, outputs: Tensor, truth: NDArray[np.int64]) -> dict[str, float]:
        """The loss over all of val as one batch; recall at 1 and MAP@R within it, 0 if undefined.

        Of few identities recall is soon 1: MAP@R tells epochs apart that it cannot.
        """
        vectors = functional.normalize(outputs, dim=1).numpy()
        distance = distances(vectors, vectors)
        return {
            "val_loss": self.loss(outputs, torch.from_numpy(truth[:, 0])).item(),
            "val_recall_at_1": _mean(recall_at(distance, truth, 1)),
            "val_map_at_r": _mean(map_at_r(distance, truth)),
        }


def _without_itself(square: Tensor) -> Tensor:
    """(n, n - 1) of (n, n): each row without its entry of the diagonal."""
    is_other = ~torch.eye(len(square), dtype=torch.bool, device=square.device)
    return square[is_other].reshape(len(square), -1)


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0

"""The half of `segmentation` that training asks: masks, a head on maps, Dice and cross-entropy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.backbones.heads import Classifier, make_network
from pipelines.backbones.spec import backbone
from pipelines.data.manifest import Entry
from pipelines.errors import ConfigError
from pipelines.kinds.segmentation.head import STRIDES, MaskHead
from pipelines.kinds.segmentation.masks import Drawn, covered, drawn_masks, in_view
from pipelines.metrics.segmentation import mean_dice
from pipelines.serving.segmentation import THRESHOLD

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams

#: Cells that are added to both sides of the soft Dice, so that an empty mask has one, too.
_SMOOTH = 1.0


class TrainedSegmentation:
    """A map a label."""

    values: tuple[str, ...] = ("val_loss", "val_dice")
    has_place: bool = True
    taught_by: str | None = None

    def network(
        self,
        name: str,
        width: float,
        n_labels: int,
        hidden: Sequence[int],
        dropout: float,
        cut: int | None,
        seed: int,
    ) -> Classifier:
        """A head on strides 8, 16 and 32; the first of ``hidden`` is its width."""
        if len(hidden) > 1:
            raise ConfigError(
                f"params.yaml: train.head.hidden: a head of masks has one width, got {len(hidden)}."
            )
        network = backbone(name, width)
        head = partial(MaskHead, network.channels_at(STRIDES), n_labels, hidden, dropout)
        return make_network(network, head, cut=cut, seed=seed, strides=STRIDES)

    def truth(self, entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path) -> NDArray[Any]:
        """(n,) `Drawn`: masks may have any size, and are read when a view is cut."""
        found = np.empty(len(entries), dtype=object)
        found[:] = drawn_masks(entries, labels, raw_dir)
        return found

    def in_view(self, truth: Any, geometry: NDArray[np.float64], side_px: int) -> NDArray[Any]:
        """(n_labels, side_px / 4, side_px / 4) share of each cell that shows a label."""
        drawn: Drawn = truth
        return covered(in_view(drawn.read(), geometry, side_px), len(drawn.labels))

    def mates(self, truth: NDArray[Any]) -> None:
        """Each image counts for itself."""

    def untaught(self, truth: NDArray[Any], labels: Sequence[str]) -> list[str]:
        """Labels that no mask shows."""
        shares = np.array([drawn.file.shares for drawn in truth]).reshape(-1, len(labels))
        return [label for label, of in zip(labels, shares.T, strict=True) if not of.any()]

    def criterion(
        self, truth: NDArray[Any], n_labels: int, params: TrainParams
    ) -> DiceAndCrossEntropy:
        """Both losses, in equal parts."""
        for key, off in (("label_smoothing", 0.0), ("balance", "none")):
            given = getattr(params, key)
            if given != off and not (key == "balance" and given in ("sampling", "source")):
                raise ConfigError(
                    f"params.yaml: train.{key}: a segmentation has none; expected {off}, got "
                    f"{given}."
                )
        if params.augment.background > 0:
            raise ConfigError(
                "params.yaml: train.augment.background: would paint over what a mask shows; "
                "expected 0."
            )
        return DiceAndCrossEntropy()


class DiceAndCrossEntropy:
    """Binary cross-entropy of each label and cell, in nats, and 1 - soft Dice of each picture.

    References:
        Milletari, Navab and Ahmadi 2016, "V-Net" (soft Dice); their sum: Isensee et al. 2021,
        "nnU-Net".
    """

    def targets(self, truth: Tensor) -> Tensor:
        """(n, n_labels, h, w) shares of cells, as they are."""
        return truth.float()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Their sum, of logits that are enlarged to the cells of the targets."""
        logits = at_cells(outputs, targets.shape[-2:])
        entropy = functional.binary_cross_entropy_with_logits(logits, targets)
        said = torch.sigmoid(logits)
        both = (said * targets).sum(dim=(2, 3))
        either = said.sum(dim=(2, 3)) + targets.sum(dim=(2, 3))
        overlap = (2 * both + _SMOOTH) / (either + _SMOOTH)
        return entropy + 1 - overlap.mean()

    def measured(self, outputs: Tensor, truth: NDArray[Any]) -> dict[str, float]:
        """The loss, and the mean Dice of pictures at 0.5."""
        targets = torch.from_numpy(truth).float()
        said = torch.sigmoid(at_cells(outputs, truth.shape[-2:])).numpy()
        return {
            "val_loss": self.loss(outputs, targets).item(),
            "val_dice": mean_dice(said >= THRESHOLD, truth >= THRESHOLD),
        }


def at_cells(logits: Tensor, shape: Sequence[int]) -> Tensor:
    """Logits, (n, c, h, w), at other cells of the same view, bilinear, as the released file."""
    return functional.interpolate(logits, size=tuple(shape), mode="bilinear", align_corners=False)

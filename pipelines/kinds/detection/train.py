"""The half of `detection` that training asks: boxes in a view, anchors, focal and smooth L1 loss.

Focal loss, and not a sample of the hardest negatives: of some thousand places a picture, a dozen
show anything, and a loss over all of them has no count of its own to choose. Its mean is over the
boxes that are there.

References:
    Lin et al. 2017, "Focal loss for dense object detection" (alpha 0.25, gamma 2); Liu et al. 2016,
    "SSD" (which places a box belongs to, smooth L1); Redmon and Farhadi 2017, "YOLO9000", section 2
    (shapes by k-means under 1 - overlap).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipelines.backbones.heads import Classifier, make_network
from pipelines.backbones.spec import backbone
from pipelines.data.manifest import Entry
from pipelines.errors import ConfigError, DataError
from pipelines.kinds.detection.boxes import in_view, true_boxes
from pipelines.kinds.detection.decoding import decoded
from pipelines.kinds.detection.head import (
    N_LEVELS,
    N_SHAPES,
    STEP_MIDDLE,
    STEP_SIZE,
    STRIDES,
    BoxHead,
    map_sizes,
    places_of,
)
from pipelines.metrics.detection import OVERLAPS, average_precision, matches, mean_over_labels

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams

_ALPHA, _GAMMA = 0.25, 2.0
#: Where smooth L1 turns from square to straight, in unit steps of the convolutions.
_BETA = 1.0
#: A place shows a box that its shape overlaps so much with; below the other, it shows nothing.
_IS_SHOWN, _IS_EMPTY = 0.5, 0.4
_N_ROUNDS = 30


class TrainedDetection:
    """A head on maps of strides 8, 16 and 32, whose shapes are fitted to the train split."""

    values: tuple[str, ...] = ("val_loss", "val_ap50")
    has_place: bool = True

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
        """The backbone with a `BoxHead`.

        Raises:
            ConfigError: if params give the head hidden layers or dropout, or the backbone lacks a
                stride.
        """
        if hidden or dropout:
            raise ConfigError(
                f"params.yaml: train.head: a detection's head has its own layers (got hidden "
                f"{list(hidden)}, dropout {dropout:g}). Expected hidden: [] and dropout: 0."
            )
        network = backbone(name, width)
        missing = [stride for stride in STRIDES if stride not in network.taps]
        if missing:
            raise ConfigError(
                f"params.yaml: train.backbone: {network.title} has no maps of stride "
                f"{', '.join(map(str, missing))}, which a detection needs. Choose another."
            )
        head = partial(BoxHead, [network.taps[stride].channels for stride in STRIDES], n_labels)
        return make_network(network, head, cut=cut, seed=seed, strides=STRIDES)

    def truth(
        self, entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path
    ) -> NDArray[np.float32]:
        """(n, MAX_BOXES, 5), see `true_boxes`."""
        return true_boxes(entries, labels)

    def in_view(
        self, truth: NDArray[np.float32], geometry: NDArray[np.float64], side_px: int
    ) -> NDArray[np.float32]:
        """Corners as shares of the view's side."""
        return in_view(truth, geometry, side_px)

    def mates(self, truth: NDArray[np.float32]) -> None:
        """Each image counts for itself."""

    def untaught(self, truth: NDArray[np.float32], labels: Sequence[str]) -> list[str]:
        """Classes without a box."""
        return [label for index, label in enumerate(labels) if not (truth[..., 4] == index).any()]

    def criterion(self, truth: NDArray[np.float32], n_labels: int, params: TrainParams) -> BoxLoss:
        """Focal loss and smooth L1.

        Raises:
            ConfigError: if params ask for what has no meaning for boxes.
        """
        asked = {
            "mixup_alpha": params.mixup_alpha,
            "label_smoothing": params.label_smoothing,
            "balance": 0 if params.balance in {"none", "sampling", "source"} else params.balance,
        }
        for key, value in asked.items():
            if value:
                raise ConfigError(
                    f"params.yaml: train.{key}: means nothing for boxes (got {value}). Expected "
                    f"{'none' if key == 'balance' else 0}."
                )
        return BoxLoss(n_labels, params.image_px)


@dataclass(slots=True)
class BoxLoss:
    """Focal loss of the labels and smooth L1 of the boxes, per true box.

    Attributes:
        side_px: of the views.
        places: (places, 4) middle and sides of what each place proposes; made by `begin`.
    """

    n_labels: int
    side_px: int
    places: Tensor = field(default_factory=lambda: torch.empty(0, 4))

    def begin(self, model: Classifier, truth: NDArray[np.float32]) -> None:
        """Fit the head's shapes, before the first step.

        Args:
            truth: (n, MAX_BOXES, 5) of the train split in plain views.

        Raises:
            DataError: if no plain view shows a box.
        """
        boxes = truth[np.isfinite(truth[..., 4])]
        if not len(boxes):
            raise DataError("no plain view of the train split shows a box. Look at crop_fraction.")
        shapes = torch.from_numpy(fitted_shapes(boxes[:, 2:4] - boxes[:, :2]))
        head = model.head
        assert isinstance(head, BoxHead)
        head.shapes.copy_(shapes)
        self.places = places_of(map_sizes(self.side_px), shapes)

    def targets(self, truth: Tensor) -> Tensor:
        """(n, places, 5): the corners of each place's box, and its label: -1 none, -2 unsaid."""
        return torch.stack([self._targets(one) for one in truth])

    def _targets(self, truth: Tensor) -> Tensor:
        boxes = truth[torch.isfinite(truth[:, 4])]
        found = torch.full((len(self.places), 5), -1.0)
        if not len(boxes):
            return found
        half = self.places[:, 2:] / 2
        corners = torch.cat([self.places[:, :2] - half, self.places[:, :2] + half], dim=1)
        shared = overlaps(corners, boxes[:, :4])
        best, which = shared.max(dim=1)
        # Each box has the place that fits it best, however badly.
        own = shared.argmax(dim=0)
        which[own] = torch.arange(len(boxes))
        best[own] = 1.0
        is_shown = best >= _IS_SHOWN
        found[is_shown] = boxes[which[is_shown]].float()
        found[(best >= _IS_EMPTY) & ~is_shown, 4] = -2.0
        return found

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Both, added, over the true boxes of the batch."""
        label = targets[..., 4]
        is_shown = label >= 0
        n = is_shown.sum().clamp(min=1)
        asked = functional.one_hot(label.clamp(min=0).long(), self.n_labels).to(outputs.dtype)
        asked = asked * is_shown[..., None]
        logits = outputs[..., 4:]
        chance = torch.sigmoid(logits)
        entropy = functional.binary_cross_entropy_with_logits(logits, asked, reduction="none")
        missed = chance * (1 - asked) + (1 - chance) * asked
        alpha = _ALPHA * asked + (1 - _ALPHA) * (1 - asked)
        focal = (alpha * missed**_GAMMA * entropy * (label > -2)[..., None]).sum()
        return (focal + self._box_loss(outputs[is_shown], targets[is_shown])) / n

    def _box_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of smooth L1 of boxes in steps of the true box's sides."""
        first, last = targets[:, :2], targets[:, 2:4]
        sides = (last - first).clamp(min=1e-4)
        middles = (outputs[:, :2] - (first + last) / 2) / (STEP_MIDDLE * sides)
        logs = (outputs[:, 2:4] - torch.log(sides)) / STEP_SIZE
        off = torch.cat([middles, logs], dim=1)
        return functional.smooth_l1_loss(off, torch.zeros_like(off), reduction="sum", beta=_BETA)

    def measured(self, outputs: Tensor, truth: NDArray[np.float32]) -> dict[str, float]:
        """The loss, and AP50 over the labels that val shows."""
        loss = self.loss(outputs, self.targets(torch.from_numpy(truth)))
        found = decoded(outputs.numpy())
        return {"val_loss": loss.item(), "val_ap50": ap50(found, truth, self.n_labels)}


def ap50(found: NDArray[np.float32], truth: NDArray[np.float32], n_labels: int) -> float:
    """Mean over the labels that are there; 0 where none is."""
    each = [average_precision(of)[0] for of in matches(found, truth, n_labels, OVERLAPS[:1])]
    return float(np.nan_to_num(mean_over_labels(each)[0]))


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """(k, m) intersection over union of (k, 4) and (m, 4) boxes."""
    first = torch.maximum(a[:, None, :2], b[None, :, :2])
    last = torch.minimum(a[:, None, 2:], b[None, :, 2:4])
    inner = (last - first).clamp(min=0).prod(dim=2)
    of_a, of_b = ((each[:, 2:4] - each[:, :2]).prod(dim=1) for each in (a, b))
    return inner / (of_a[:, None] + of_b[None] - inner).clamp(min=1e-12)


def fitted_shapes(sides: NDArray[np.floating]) -> NDArray[np.float32]:
    """(levels, shapes, 2) widths and heights that overlap best with those of boxes.

    Small ones go to the finest level. By k-means, from quantiles of the area, so that nothing is
    drawn.

    Args:
        sides: (k, 2) of the boxes, as shares of the view's side.
    """
    n = N_LEVELS * N_SHAPES
    ordered = sides[np.argsort(sides.prod(axis=1), kind="stable")].astype(np.float64)
    middles = ordered[np.linspace(0, len(ordered) - 1, n).round().astype(int)]
    for _ in range(_N_ROUNDS):
        inner = np.minimum(ordered[:, None], middles[None]).prod(axis=2)
        outer = ordered.prod(axis=1)[:, None] + middles.prod(axis=1)[None] - inner
        nearest = (inner / outer).argmax(axis=1)
        moved = np.array(
            [
                np.median(ordered[nearest == k], axis=0) if (nearest == k).any() else middles[k]
                for k in range(n)
            ]
        )
        if np.allclose(moved, middles):
            break
        middles = moved
    by_area = middles[np.argsort(middles.prod(axis=1), kind="stable")]
    shapes: NDArray[np.float32] = by_area.reshape(N_LEVELS, N_SHAPES, 2).astype(np.float32)
    return shapes

"""The half of `detection` that training asks: boxes in a view, anchors, focal and smooth L1 loss.

Focal loss, and not a sample of the hardest negatives: of some thousand places a picture, a dozen
show anything, and a loss over all of them has no count of its own to choose. Its mean is over the
boxes that are there.

References:
    Lin et al. 2017, "Focal loss for dense object detection" (alpha 0.25, gamma 2); Liu et al. 2016,
    "SSD" (smooth L1); Zhang et al. 2020, "Bridging the gap between anchor-based and anchor-free
    detection via adaptive training sample selection" (which places show a box); Redmon and Farhadi
    2017, "YOLO9000", section 2 (shapes by k-means under 1 - overlap).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
#: Places of each level that are nearest to a box, and may show it.
_N_NEAREST = 9
#: A place that shows no box, and overlaps so much with one, is not told that it is empty.
_IS_UNSAID = 0.5
#: Sides of the largest boxes of a level, in strides.
_LARGEST = 4
#: Shapes of a level of which the train split has too few boxes, in strides.
_SHAPES_OF_FEW = (2.0, 2.8, 4.0)
_N_ROUNDS = 30


class TrainedDetection:
    """A head on maps of strides 8, 16 and 32, whose shapes are fitted to the train split."""

    values: tuple[str, ...] = ("val_loss", "val_ap50")
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
        head = partial(BoxHead, network.channels_at(STRIDES), n_labels)
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

    def begin(
        self,
        model: Classifier,
        truth: NDArray[np.float32],
        embeddings: Callable[[], NDArray[np.float32]],
    ) -> None:
        """Fit the head's shapes, before the first step.

        Args:
            truth: (n, MAX_BOXES, 5) of the train split in plain views.

        Raises:
            DataError: if no plain view shows a box.
        """
        boxes = truth[np.isfinite(truth[..., 4])]
        if not len(boxes):
            raise DataError("no plain view of the train split shows a box. Look at crop_fraction.")
        sides_px = self.side_px * (boxes[:, 2:4] - boxes[:, :2])
        shapes = torch.from_numpy(fitted_shapes(sides_px) / np.float32(self.side_px))
        head = model.head
        assert isinstance(head, BoxHead)
        head.shapes.copy_(shapes)
        self.places = places_of(map_sizes(self.side_px), shapes)

    def targets(self, truth: Tensor) -> Tensor:
        """(n, places, 5): the corners of each place's box, and its label: -1 none, -2 unsaid."""
        if not len(truth):
            # Of a small batch, one of several processes may have no picture.
            return torch.empty(0, len(self.places), 5)
        return torch.stack([self._targets(one) for one in truth])

    def _targets(self, truth: Tensor) -> Tensor:
        boxes = truth[torch.isfinite(truth[:, 4])]
        found = torch.full((len(self.places), 5), -1.0)
        if not len(boxes):
            return found
        half = self.places[:, 2:] / 2
        corners = torch.cat([self.places[:, :2] - half, self.places[:, :2] + half], dim=1)
        shared = overlaps(corners, boxes[:, :4])
        is_shown = self._are_shown(shared, boxes[:, :4])
        best, which = torch.where(is_shown, shared, -1.0).max(dim=1)
        found[shared.max(dim=1).values >= _IS_UNSAID, 4] = -2.0
        taken = best >= 0
        found[taken] = boxes[which[taken]].float()
        return found

    def _are_shown(self, shared: Tensor, boxes: Tensor) -> Tensor:
        """(places, k) which places show which box: of the nearest ones, those that fit it well."""
        middles = (boxes[:, :2] + boxes[:, 2:]) / 2
        distance = torch.cdist(self.places[:, :2], middles)
        is_near = torch.zeros_like(shared, dtype=torch.bool)
        first = 0
        for height, width in map_sizes(self.side_px):
            level = distance[first : first + height * width * N_SHAPES]
            nearest = level.topk(min(_N_NEAREST, len(level)), dim=0, largest=False).indices
            is_near[first + nearest, torch.arange(len(boxes))] = True
            first += len(level)
        near = torch.where(is_near, shared, torch.nan)
        n = is_near.sum(dim=0)
        mean = torch.nansum(near, dim=0) / n
        spread = torch.sqrt(torch.nansum((near - mean) ** 2, dim=0) / (n - 1).clamp(min=1))
        is_inside = (self.places[:, None, :2] > boxes[None, :, :2]).all(dim=2)
        is_inside &= (self.places[:, None, :2] < boxes[None, :, 2:]).all(dim=2)
        found = is_near & is_inside & (shared >= mean + spread)
        # Each box has the place that fits it best, however badly.
        found[shared.argmax(dim=0), torch.arange(len(boxes))] = True
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


def fitted_shapes(sides_px: NDArray[np.floating]) -> NDArray[np.float32]:
    """(levels, shapes, 2) widths and heights that overlap best with those of boxes, in px.

    A level has the boxes of up to four times its stride, since the places of a coarser one would
    lie too far from their middles; the last has all larger ones.

    Args:
        sides_px: (k, 2) of the boxes.
    """
    size = np.sqrt(sides_px.prod(axis=1))
    strides = [*STRIDES, 2 * STRIDES[-1]]
    edges = [0.0, *(_LARGEST * stride for stride in strides[:-1]), np.inf]
    shapes = []
    for stride, least, most in zip(strides, edges[:-1], edges[1:], strict=True):
        own = sides_px[(size > least) & (size <= most)].astype(np.float64)
        few = np.repeat(stride * np.array(_SHAPES_OF_FEW)[:, None], 2, axis=1)
        shapes.append(few if len(own) < N_SHAPES else _clustered(own))
    return np.stack(shapes).astype(np.float32)


def _clustered(sides: NDArray[np.float64]) -> NDArray[np.float64]:
    """(shapes, 2), small ones first; from quantiles of the area, so that nothing is drawn."""
    ordered = sides[np.argsort(sides.prod(axis=1), kind="stable")]
    quantiles = (np.arange(N_SHAPES) + 0.5) / N_SHAPES
    middles = ordered[(quantiles * len(ordered)).astype(int)]
    for _ in range(_N_ROUNDS):
        inner = np.minimum(ordered[:, None], middles[None]).prod(axis=2)
        outer = ordered.prod(axis=1)[:, None] + middles.prod(axis=1)[None] - inner
        nearest = (inner / outer).argmax(axis=1)
        moved = np.array(
            [
                np.median(ordered[nearest == k], axis=0) if (nearest == k).any() else middles[k]
                for k in range(N_SHAPES)
            ]
        )
        if np.allclose(moved, middles):
            break
        middles = moved
    by_area: NDArray[np.float64] = middles[np.argsort(middles.prod(axis=1), kind="stable")]
    return by_area

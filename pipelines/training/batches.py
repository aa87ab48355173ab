"""What both strategies share: a split, which of its images an epoch draws, and what is trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.backbones.heads import Classifier
from pipelines.data.loaders import Pictures
from pipelines.data.workers import ordered_map
from pipelines.errors import ConfigError
from pipelines.kinds.train import KINDS

_LOG = logging.getLogger(__name__)

#: Rows that go through a network at once where no gradient is kept.
EVAL_BATCH = 64


@dataclass(frozen=True, slots=True)
class Split:
    """The images of a split and what is true of them.

    Attributes:
        pictures: images.
        truth: (n, ...) of the kind.
        in_view: of a kind whose truth has a place: as `TrainedKind.in_view`. None: no view moves
            it.
        soft_targets: a teacher's probabilities, (n, n_classes), or vectors of unit length, (n, d),
            float32; None without one.
        mates: as `TrainedKind.mates`.
    """

    pictures: Pictures
    truth: NDArray[Any]
    in_view: Callable[[NDArray[Any], NDArray[np.float64], int], NDArray[Any]] | None = None
    soft_targets: Tensor | None = None
    mates: NDArray[np.int64] | None = None

    def __add__(self, other: Split) -> Split:
        """The images of both, those of ``other`` last and augmented as the first; not taught."""
        pictures = replace(self.pictures, entries=[*self.pictures.entries, *other.pictures.entries])
        mates = None
        if self.mates is not None and other.mates is not None:
            mates = np.concatenate([self.mates, other.mates])
        truth = np.concatenate([self.truth, other.truth])
        return Split(pictures, truth, self.in_view, mates=mates)

    def plain_truth(self) -> NDArray[Any]:
        """(n, ...) what is true of each image in its plain view."""
        rows = ordered_map(lambda row: self.truth_in(row, [0])[0], range(len(self.truth)), window=8)
        return np.array(list(rows))

    def truth_in(self, row: int, views: Sequence[int]) -> NDArray[Any]:
        """What is true of an image in some of its views.

        Args:
            row: of the image.
            views: numbers of the views; 0 is the plain one.

        Returns:
            (len(views), ...).
        """
        if self.in_view is None:
            return np.stack([self.truth[row]] * len(views))
        places = self.pictures.geometry(self.pictures.entries[row], views)
        side_px = self.pictures.preprocess.crop_px
        return np.stack([self.in_view(self.truth[row], place, side_px) for place in places])


def split_of(pictures: Pictures, labels: Sequence[str], kind: str) -> Split:
    """Pictures with what is true of them.

    Args:
        labels: in the order of the model's outputs.
        kind: of the task.
    """
    asked = KINDS[kind]
    truth = asked.truth(pictures.entries, labels, pictures.raw_dir)
    in_view = asked.in_view if asked.has_place else None
    return Split(pictures, truth, in_view, mates=asked.mates(truth))


def epoch_order(
    n_images: int,
    generator: np.random.Generator,
    weights: NDArray[np.float64] | None,
    mates: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Rows of the images of an epoch, in order, (n_images,).

    Each image is drawn once; with weights of mean 1, with replacement and in proportion to them.
    Without weights, images with one number of ``mates`` stand together, four at a time.
    """
    if weights is None and mates is not None:
        return _in_company(generator.permutation(n_images), mates, generator)
    if weights is None:
        return generator.permutation(n_images)
    return generator.choice(n_images, size=n_images, p=weights / n_images)


#: Images of one number that stand together: three to compare an image with, and eight numbers in a
#: batch of 32.
_TOGETHER = 4


def _in_company(
    rows: NDArray[np.int64], mates: NDArray[np.int64], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rows in another order, in which those of one number stand together, a few at a time."""
    by_number: dict[int, list[int]] = {}
    for row in rows.tolist():
        by_number.setdefault(int(mates[row]), []).append(row)
    parcels = [
        found[start : start + _TOGETHER]
        for found in by_number.values()
        for start in range(0, len(found), _TOGETHER)
    ]
    order = [row for index in generator.permutation(len(parcels)) for row in parcels[index]]
    return np.array(order, dtype=np.int64)


def chunks(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of rows; a last batch of one joins the one before it."""
    cuts = list(range(size, len(rows), size))
    if cuts and len(rows) - cuts[-1] == 1:
        cuts.pop()
    return np.split(rows, cuts)


def train_from(model: Classifier, first: int, *, train_norms: bool) -> None:
    """Put a network into the state in which the head and the blocks from ``first`` on are trained.

    Args:
        first: index of a block; the number of blocks freezes all.
        train_norms: whether the statistics of batch norms move too. Pretrained ones should not: a
            small data set would only blur them.
    """
    for index, block in enumerate(model.blocks):
        block.requires_grad_(index >= first)
    model.train()
    if not train_norms:
        for module in model.blocks.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def trained_modules(model: Classifier, first: int, decay: float) -> list[tuple[nn.Module, float]]:
    """The head and the blocks from ``first`` on, each with its share of the learning rate.

    From each block to the one before it the share goes down by the factor ``decay``.

    References:
        Howard and Ruder 2018, "Universal language model fine-tuning" (discriminative rates).
    """
    blocks = list(model.blocks[first:])
    shares = [decay ** (len(blocks) - i) for i in range(len(blocks))]
    return [(model.head, 1.0), *zip(blocks, shares, strict=True)]


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters lie."""
    return next(model.parameters()).device


# -- how often an image is drawn ------------------------------------------------------------------
def draw_weights(train: Split, balance: str, what: str) -> NDArray[np.float64] | None:
    """How often to draw each image of the train split, their mean 1; None: each once an epoch.

    Raises:
        ConfigError: if images are to be weighted by source, and sources cannot help.
    """
    entries = train.pictures.entries
    class_index = np.unique([entry.label for entry in entries], return_inverse=True)[1]
    if balance == "sampling":
        return class_draw_weights(class_index)
    if balance == "source":
        return source_draw_weights(class_index, [entry.source for entry in entries], what)
    return None


def class_draw_weights(class_index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of mean 1 under which each class that occurs is drawn as often."""
    counts = np.bincount(class_index)
    weights: NDArray[np.float64] = len(class_index) / (
        np.count_nonzero(counts) * counts[class_index]
    )
    return weights


def source_draw_weights(
    class_index: NDArray[np.int64], sources: Sequence[str], what: str
) -> NDArray[np.float64]:
    """Weights under which label and source are independent, and each class is drawn as often.

    Where a source lacks a class no weight can help: then classes are as often within each source,
    among those that it has, and a line of the log says what is missing.

    Args:
        sources: (n,) the collection that each image comes from; empty if unknown.

    Returns:
        (n,), positive; their mean is 1. Each source keeps its share of all draws.

    Raises:
        ConfigError: if an image has no source, or if no source has images of two classes.

    References:
        Kamiran and Calders 2012, "Data preprocessing techniques for classification without
        discrimination", section 4.3 (reweighing: P(s) P(y) / P(s, y)); here with P(y) uniform.
    """
    n_unknown = sum(not source for source in sources)
    if n_unknown:
        raise ConfigError(
            f"params.yaml: {what}: train.balance: source needs the source of every image; "
            f"{n_unknown} of {len(sources)} train images have none in manifest.csv. Add a "
            f"'source' column to records.csv, or use class_weights."
        )
    names, source_index = np.unique(np.asarray(sources, dtype=np.str_), return_inverse=True)
    labels, label_index = np.unique(class_index, return_inverse=True)
    counts = np.zeros((len(names), len(labels)))
    np.add.at(counts, (source_index, label_index), 1)
    n_labels = np.count_nonzero(counts, axis=1)
    if n_labels.max() < 2:
        raise ConfigError(
            f"params.yaml: {what}: train.balance: source cannot help: each of the {len(names)} "
            f"sources has images of one class only, so that source and label are the same thing. "
            f"Collect other images, or use class_weights."
        )
    poor = [str(names[i]) for i in np.flatnonzero(n_labels < len(labels))]
    if poor:
        _LOG.warning(
            "%s: %d of %d sources lack a class (%s): there the label can still be told by the "
            "source",
            what,
            len(poor),
            len(names),
            ", ".join(poor[:3]),
        )
    each = counts.sum(axis=1) / n_labels
    weights: NDArray[np.float64] = each[source_index] / counts[source_index, label_index]
    return weights

"""What both strategies share: a split's images, the order of an epoch, and what is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipelines.backbones.heads import Classifier
from pipelines.data.loaders import Pictures

#: Rows that go through a network at once where no gradient is kept.
EVAL_BATCH = 64


@dataclass(frozen=True, slots=True)
class Split:
    """The images of a split and their labels as numbers.

    Attributes:
        pictures: images.
        class_index: (n,).
    """

    pictures: Pictures
    class_index: NDArray[np.int64]

    def __add__(self, other: Split) -> Split:
        """The images of both, those of ``other`` last and augmented as the first."""
        pictures = replace(self.pictures, entries=[*self.pictures.entries, *other.pictures.entries])
        return Split(pictures, np.concatenate([self.class_index, other.class_index]))


def epoch_order(
    n_images: int, generator: np.random.Generator, weights: NDArray[np.float64] | None
) -> NDArray[np.int64]:
    """The images of an epoch, in order.

    Args:
        n_images: of the train split.
        generator: draws the order.
        weights: (n_images,) of mean 1; images are then drawn with replacement, in proportion. None:
            each is drawn once.

    Returns:
        (n_images,) rows.
    """
    if weights is None:
        return generator.permutation(n_images)
    return generator.choice(n_images, size=n_images, p=weights / n_images)


def chunks(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of rows; a last batch of one joins the one before it.

    Args:
        rows: (n,).
        size: of a batch.
    """
    cuts = list(range(size, len(rows), size))
    if cuts and len(rows) - cuts[-1] == 1:
        cuts.pop()
    return np.split(rows, cuts)


def freeze_before(model: Classifier, first_trained: int) -> None:
    """Let gradients reach the blocks from ``first_trained`` on, and none before.

    Args:
        model: changed in place.
        first_trained: index of a block; the number of blocks freezes all.
    """
    for index, block in enumerate(model.blocks):
        block.requires_grad_(index >= first_trained)


def set_modes(model: Classifier, *, train_norms: bool) -> None:
    """Put a network into training mode.

    Args:
        model: changed in place.
        train_norms: whether the statistics of batch norms move too. Pretrained ones should not: a
            small data set would only blur them.
    """
    model.train()
    if not train_norms:
        for module in model.blocks.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def train_from(model: Classifier, first: int, *, train_norms: bool) -> None:
    """Put a network into the state in which the head and the blocks from ``first`` on are trained.

    Args:
        model: changed in place.
        first: as of `freeze_before`.
        train_norms: as of `set_modes`.
    """
    freeze_before(model, first)
    set_modes(model, train_norms=train_norms)


def trained_modules(model: Classifier, first: int, decay: float) -> list[tuple[nn.Module, float]]:
    """The head and the blocks from ``first`` on, each with its share of the learning rate.

    Args:
        model: whose modules.
        first: index of the first block that is trained.
        decay: share of the learning rate from each block to the one before it.

    References:
        Howard and Ruder 2018, "Universal language model fine-tuning" (discriminative rates).
    """
    blocks = list(model.blocks[first:])
    shares = [decay ** (len(blocks) - i) for i in range(len(blocks))]
    return [(model.head, 1.0), *zip(blocks, shares, strict=True)]


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters lie.

    Args:
        model: with at least one parameter.
    """
    return next(model.parameters()).device

"""A backbone with a classifier on top, split at a cut."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipelines.backbones.layers import BehindPool
from pipelines.backbones.spec import backbone
from pipelines.errors import ConfigError


class Classifier(nn.Module):
    """Blocks, global average pooling, head.

    Attributes:
        blocks: the backbone, in order; the last may be a `BehindPool`.
        head: from the embedding to the logits.
        cut: first block of the tail.
    """

    def __init__(self, blocks: Sequence[nn.Module], head: nn.Module, cut: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.cut = cut

    def trunk(self, pixels: Tensor) -> Tensor:
        """Activations at the cut.

        Args:
            pixels: (n, 3, h, w), normalised.

        Returns:
            (n, c, h', w').
        """
        for block in self.blocks[: self.cut]:
            pixels = block(pixels)
        return pixels

    @property
    def n_maps(self) -> int:
        """How many blocks stand before the pool."""
        return len(self.blocks) - isinstance(self.blocks[-1], BehindPool)

    def embed(self, activations: Tensor, first: int | None = None) -> Tensor:
        """Features of activations, pooled, behind all blocks.

        Args:
            activations: (n, c, h', w').
            first: block that reads them; None for the first of the tail.

        Returns:
            (n, n_features).
        """
        for block in self.blocks[self.cut if first is None else first :]:
            activations = block(activations)
        return activations.mean(dim=(2, 3))

    def tail(self, activations: Tensor) -> Tensor:
        """Logits of activations at the cut.

        Args:
            activations: (n, c, h', w'), as `trunk` gives them.

        Returns:
            (n, n_classes).
        """
        logits: Tensor = self.head(self.embed(activations))
        return logits

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and embedding of pictures.

        Args:
            pixels: (n, 3, h, w), normalised.

        Returns:
            (n, n_classes) and (n, n_features).
        """
        embedding = self.embed(self.trunk(pixels))
        return self.head(embedding), embedding


def make_head(
    n_features: int, n_classes: int, hidden: Sequence[int], dropout: float
) -> nn.Sequential:
    """A head: hidden layers with ReLU, dropout, and a linear layer.

    Args:
        n_features: width of the embedding.
        n_classes: number of logits.
        hidden: widths of hidden layers; none for a linear head.
        dropout: probability, before the last layer.
    """
    layers: list[nn.Module] = []
    width = n_features
    for next_width in hidden:
        layers += [nn.Linear(width, next_width), nn.ReLU()]
        width = next_width
    last = nn.Linear(width, n_classes)
    # Small and unbiased: the first steps then follow the features, not the draw.
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, nn.Dropout(dropout), last)


def make_classifier(
    name: str,
    width: float = 1.0,
    *,
    n_classes: int,
    hidden: Sequence[int],
    dropout: float,
    cut: int | None,
    seed: int,
) -> Classifier:
    """An untrained classifier.

    Args:
        name: of the backbone.
        width: multiplier of its channels.
        n_classes: number of logits, at least 2.
        hidden: widths of the head's hidden layers.
        dropout: of the head, in [0, 1).
        cut: first block of the tail; None for the backbone's default.
        seed: draws the initial weights; the global generator is left as it was.

    Raises:
        ConfigError: if the backbone is unknown, or has no such width or block.
    """
    spec = backbone(name, width)
    n_features, default_cut = spec.n_features, spec.default_cut
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = spec.build()
        head = make_head(n_features, n_classes, hidden, dropout)
    cut = default_cut if cut is None else cut
    if not 0 <= cut <= len(blocks):
        raise ConfigError(
            f"params.yaml: train.cut: {name} has the blocks 0 to {len(blocks) - 1}; expected a cut "
            f"from 0 to {len(blocks)}, got {cut}."
        )
    return Classifier(blocks, head, cut)

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
        cut: first block of the tail.
    """

    def __init__(self, blocks: Sequence[nn.Module], head: nn.Module, cut: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.head = head
        self.cut = cut

    def trunk(self, pixels: Tensor) -> Tensor:
        """Normalised pixels, (n, 3, h, w), to activations at the cut, (n, c, h', w')."""
        for block in self.blocks[: self.cut]:
            pixels = block(pixels)
        return pixels

    @property
    def n_maps(self) -> int:
        """How many blocks stand before the pool."""
        return len(self.blocks) - isinstance(self.blocks[-1], BehindPool)

    def embed(self, activations: Tensor, first: int | None = None) -> Tensor:
        """Activations, (n, c, h', w'), to pooled features behind all blocks, (n, n_features).

        The block ``first`` reads them; by default the first of the tail.
        """
        for block in self.blocks[self.cut if first is None else first :]:
            activations = block(activations)
        return activations.mean(dim=(2, 3))

    def tail(self, activations: Tensor) -> Tensor:
        """Activations at the cut to logits, (n, n_classes)."""
        logits: Tensor = self.head(self.embed(activations))
        return logits

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels to logits, (n, n_classes), and embedding, (n, n_features)."""
        embedding = self.embed(self.trunk(pixels))
        return self.head(embedding), embedding


def make_head(
    n_features: int, n_classes: int, hidden: Sequence[int], dropout: float
) -> nn.Sequential:
    """A head: hidden layers of some widths with ReLU, dropout, and a linear layer."""
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

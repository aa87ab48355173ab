"""A backbone with a classifier on top, split at a cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pipelines.backbones.layers import BehindPool
from pipelines.backbones.spec import Backbone, backbone
from pipelines.errors import ConfigError


class Classifier(nn.Module):
    """Blocks, global average pooling, head.

    Attributes:
        blocks: the backbone, in order; the last may be a `BehindPool`.
        head: from the embedding, or from the taps, to one tensor.
        cut: first block of the tail.
        taps: blocks whose maps the head reads, none before the cut; none: it reads the embedding.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], head: nn.Module, cut: int, taps: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.taps = tuple(taps)
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
        """What the head says of activations at the cut: (n, ...), e.g. (n, n_classes) logits."""
        return self._answer(activations)[0]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """What the head says of normalised pixels, and their embedding, (n, n_features)."""
        return self._answer(self.trunk(pixels))

    def _answer(self, activations: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for index, block in enumerate(self.blocks[self.cut :], self.cut):
            activations = block(activations)
            if index in self.taps:
                maps.append(activations)
        embedding = activations.mean(dim=(2, 3))
        return self.head(*maps or [embedding]), embedding


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
        seed: as of `make_network`.

    Raises:
        ConfigError: if the backbone is unknown, or has no such width or block.
    """
    network = backbone(name, width)
    make = partial(make_head, network.n_features, n_classes, hidden, dropout)
    return make_network(network, make, cut=cut, seed=seed)


def make_network(
    network: Backbone,
    make_head: Callable[[], nn.Module],
    *,
    cut: int | None,
    seed: int,
    strides: Sequence[int] = (),
) -> Classifier:
    """An untrained network with a head of any kind.

    Args:
        make_head: gives the head.
        cut: first block of the tail; None for the backbone's default, or the lowest tap if that
            is before it.
        seed: draws the initial weights; the global generator is left as it was.
        strides: of the taps that the head reads, as `Backbone.taps` has them; none for the
            embedding.

    Raises:
        ConfigError: if the backbone has no such block.
    """
    taps = [network.taps[stride].block for stride in strides]
    first_read = min((*taps, network.default_cut))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = network.build()
        head = make_head()
    cut = first_read if cut is None else cut
    last = min((*taps, len(blocks)))
    if not 0 <= cut <= last:
        raise ConfigError(
            f"params.yaml: train.cut: {network.title} has the blocks 0 to {len(blocks) - 1}; "
            f"expected a cut from 0 to {last}, got {cut}."
        )
    return Classifier(blocks, head, cut, taps)

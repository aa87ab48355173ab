"""A backbone with a classifier on top, split at a cut; and layers that families need.

Networks that were trained in TensorFlow pad a convolution of stride 2 more at the right and at the
bottom. timm computes how much while it runs; here it stands in the layer, so that an exported file
holds constants, and the quantiser of ExecuTorch has no ``padding="same"`` to fail on
(pytorch/executorch#20517).

References:
    TensorFlow, tf.nn.convolution: padding "SAME".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipelines.backbones.spec import backbone
from pipelines.errors import ConfigError


class BehindPool(nn.Sequential):
    """A network's last block: the pool, and the layers that read it.

    It gives (n, d, 1, 1), whose mean over the picture is itself, so that whoever pools the last
    block's output has the embedding.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """(n, c, h, w) to (n, d, 1, 1)."""
        values = maps.mean(dim=(2, 3), keepdim=True)
        for layer in self:
            values = layer(values)
        return values


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's "same" does where its stride divides the input.

    Inputs have a side that is a multiple of 32, and so does what reaches a convolution of stride s
    a multiple of s: the padding of each side does not depend on the picture's size.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        stride: tuple[int, int],
        *,
        dilation: tuple[int, int] = (1, 1),
        **options: Any,
    ) -> None:
        """As ``nn.Conv2d``, which is told how to pad; sizes are (height, width)."""
        sizes = zip(kernel_size, stride, dilation, strict=True)
        height, width = (max(d * (size - 1) + 1 - step, 0) for size, step, d in sizes)
        is_even = height % 2 == width % 2 == 0
        options |= {"dilation": dilation, "padding": (height // 2, width // 2) if is_even else 0}
        super().__init__(in_channels, out_channels, kernel_size, stride, **options)
        #: Left, right, top, bottom of what the convolution itself cannot pad.
        self.edges = (
            None if is_even else (width // 2, width - width // 2, height // 2, height - height // 2)
        )

    def forward(self, values: Tensor) -> Tensor:
        """(n, c, h, w) to (n, d, h / stride, w / stride)."""
        if self.edges is not None:
            values = nn.functional.pad(values, self.edges)
        return super().forward(values)


def with_explicit_padding(network: nn.Module) -> nn.Module:
    """A copy of a network whose padding "same" (timm's or torch's) is written down; names stay."""
    changed = copy.deepcopy(network)
    for parent in changed.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and (
                child.padding == "same" or type(child).__name__ == "Conv2dSame"
            ):
                setattr(parent, name, _explicit(child))
    return changed


def _explicit(convolution: nn.Conv2d) -> SameConv2d:
    kernel_size, stride, dilation = (
        cast("tuple[int, int]", size)
        for size in (convolution.kernel_size, convolution.stride, convolution.dilation)
    )
    explicit = SameConv2d(
        convolution.in_channels,
        convolution.out_channels,
        kernel_size,
        stride,
        dilation=dilation,
        groups=convolution.groups,
        bias=convolution.bias is not None,
        device="meta",
    )
    explicit.weight, explicit.bias = convolution.weight, convolution.bias
    return explicit.train(convolution.training)


# -- classifiers ----------------------------------------------------------------------------------
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
        ConfigError: as `make_network`.
    """
    n_features = backbone(name).n_features
    make = partial(make_head, n_features, n_classes, hidden, dropout)
    return make_network(name, make, cut=cut, seed=seed)


def make_network(
    name: str,
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
        strides: of the taps that the head reads, as `BackboneSpec.taps` has them; none for the
            embedding.

    Raises:
        ConfigError: if the backbone is unknown or has no such block.
    """
    spec = backbone(name)
    taps = [spec.taps[stride].block for stride in strides]
    first_read = min((*taps, spec.default_cut))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        blocks = spec.build()
        head = make_head()
    cut = first_read if cut is None else cut
    last = min((*taps, len(blocks)))
    if not 0 <= cut <= last:
        raise ConfigError(
            f"params.yaml: train.cut: {name} has the blocks 0 to {len(blocks) - 1}; expected a cut "
            f"from 0 to {last}, got {cut}."
        )
    return Classifier(blocks, head, cut, taps)

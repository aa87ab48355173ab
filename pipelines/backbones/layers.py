"""Layers that networks need and torch lacks, and networks as rows of blocks.

Networks that were trained in TensorFlow pad a convolution of stride 2 more at the right and at the
bottom. timm computes how much while it runs; here it stands in the layer, so that an exported file
holds constants, and the quantiser of ExecuTorch has no ``padding="same"`` to fail on
(pytorch/executorch#20517).

References:
    TensorFlow, tf.nn.convolution: padding "SAME".
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from pipelines.backbones.spec import Padding, timm, torchvision_models

Module = TypeVar("Module", bound=nn.Module)


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


def replaced(
    network: Module,
    is_wanted: Callable[[nn.Module], bool],
    new: Callable[[Any], nn.Module],
) -> Module:
    """A network, which is changed: some of its layers have others in their place.

    Args:
        is_wanted: of a layer at any depth.
        new: gives what stands in a layer's place.
    """
    for parent in network.modules():
        for name, child in parent.named_children():
            if is_wanted(child):
                setattr(parent, name, new(child))
    return network


def with_explicit_padding(network: Module) -> Module:
    """A copy whose convolutions with padding "same" have it written down; names stay.

    Args:
        network: with timm's ``Conv2dSame``, or torch's ``padding="same"``.
    """

    def is_implicit(layer: nn.Module) -> bool:
        return isinstance(layer, nn.Conv2d) and (
            layer.padding == "same" or type(layer).__name__ == "Conv2dSame"
        )

    return replaced(copy.deepcopy(network), is_implicit, _explicit)


def padded(blocks: list[nn.Module], padding: Padding) -> list[nn.Module]:
    """Blocks, which are changed: their convolutions pad as TensorFlow's do where that is asked.

    Args:
        blocks: whose convolutions pad alike on both sides.
    """
    if padding == "same":
        for block in blocks:
            replaced(block, lambda layer: isinstance(layer, nn.Conv2d), _explicit)
    return blocks


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


class Residual(nn.Sequential):
    """Layers, and a shortcut round them where they leave size and channels as they are."""

    def forward(self, values: Tensor) -> Tensor:
        """(n, c, h, w) to (n, d, h', w')."""
        result = values
        for layer in self:
            result = layer(result)
        return result + values if result.shape == values.shape else result


# -- rows of blocks -------------------------------------------------------------------------------
def row(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """A block a layer, with the pool before it and the activation behind it.

    So a cut lies where pictures are small.
    """
    blocks: list[list[nn.Module]] = []
    for layer in layers:
        last = blocks[-1][-1] if blocks else None
        if last is not None and (isinstance(layer, nn.ReLU) or isinstance(last, nn.MaxPool2d)):
            blocks[-1].append(layer)
        else:
            blocks.append([layer])
    return [each[0] if len(each) == 1 else nn.Sequential(*each) for each in blocks]


def torchvision_row(builder: str, attribute: str, **options: Any) -> list[nn.Module]:
    """The blocks of one of torchvision's networks.

    Args:
        builder: a function of ``torchvision.models``.
        attribute: of the network, that holds the blocks in order.
        options: of the builder.
    """
    return list(getattr(getattr(torchvision_models(), builder)(**options), attribute))


def timm_row(model: str, **options: Any) -> list[nn.Module]:
    """The blocks of one of timm's networks that are built like EfficientNet or MobileNetV3.

    Args:
        model: timm's name of it.
        options: of ``timm.create_model``.
    """
    network: Any = with_explicit_padding(timm().create_model(model, pretrained=False, **options))
    stem = nn.Sequential(network.conv_stem, network.bn1)
    stages = [block for stage in network.blocks for block in stage]
    if hasattr(network, "norm_head"):
        behind = BehindPool(network.conv_head, network.norm_head, network.act2)
        return [stem, *stages, behind]
    return [stem, *stages, nn.Sequential(network.conv_head, network.bn2)]

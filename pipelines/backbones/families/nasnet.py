"""NASNet-A (4 @ 1056), called NASNet-Mobile.

A cell reads the two cells before it. A row of blocks hands on one tensor, so that a block is a
stack of cells, and what it gives are its last two cells, one behind the other in the channels.

References:
    Zoph et al. 2018, "Learning transferable architectures for scalable image recognition".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec, Padding, Pretrained, timm

if TYPE_CHECKING:
    from torch import nn

_FILTERS, _STEM = 1056, 32


def _build(_: float, __: Padding) -> list[nn.Module]:
    import torch
    from torch import Tensor, nn

    timm()
    from timm.models.nasnet import NASNetALarge

    net = NASNetALarge(stem_size=_STEM, num_features=_FILTERS, pad_type="")

    class Stem(nn.Module):
        """Pictures to the two tensors before the first cell, and its stack."""

        def __init__(self) -> None:
            super().__init__()
            self.conv0, self.stem_0, self.stem_1 = net.conv0, net.cell_stem_0, net.cell_stem_1
            self.cells = nn.ModuleList([net.cell_0, net.cell_1, net.cell_2, net.cell_3])

        def forward(self, pixels: Tensor) -> Tensor:
            first = self.conv0(pixels)
            before = self.stem_0(first)
            now = self.stem_1(first, before)
            for cell in self.cells:
                now, before = cell(now, before), now
            return torch.cat([now, before], dim=1)

    class Stack(nn.Module):
        """A reduction cell and a stack of normal ones; the last ends with the activation."""

        def __init__(self, reduction: nn.Module, cells: list[nn.Module], *, is_last: bool) -> None:
            super().__init__()
            self.reduction, self.cells, self.is_last = reduction, nn.ModuleList(cells), is_last

        def forward(self, pair: Tensor) -> Tensor:
            now, before = pair.chunk(2, dim=1)
            # The cell behind the reduction reads what was before it, not the reduction's input.
            now = self.reduction(now, before)
            for cell in self.cells:
                now, before = cell(now, before), now
            return torch.relu(now) if self.is_last else torch.cat([now, before], dim=1)

    return [
        Stem(),
        Stack(
            net.reduction_cell_0, [net.cell_6, net.cell_7, net.cell_8, net.cell_9], is_last=False
        ),
        Stack(
            net.reduction_cell_1, [net.cell_12, net.cell_13, net.cell_14, net.cell_15], is_last=True
        ),
    ]


nasnet_mobile = BackboneSpec(
    name="nasnet_mobile",
    family="nasnet",
    build=_build,
    licence="Apache-2.0",
    # Nobody publishes weights of it for torch that could be had without a converter.
    widths={1.0: Pretrained()},
)

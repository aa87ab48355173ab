"""The head of a detection: depthwise-separable convolutions on maps of strides 8 to 64.

As SSDLite, each place of each map proposes boxes of a few shapes, moved and stretched by what the
head says. As in a feature pyramid, finer maps are told what coarser ones see, since small things
are told by their surroundings. Without batch norms: pretrained networks have theirs folded before
training (ADR 0011).

What it gives is (n, places, 4 + labels): middle x and y, logarithms of width and height, in shares
of the view's side, then a logit a label. These follow from what the convolutions say by a division
and a subtraction of constants, which no quantiser touches: a file in int8 has its boxes in float.

References:
    Sandler et al. 2018, "MobileNetV2", section 6.2 (SSDLite); Liu et al. 2016, "SSD"; Lin et al.
    2017, "Feature pyramid networks for object detection", and "Focal loss for dense object
    detection" (the bias of the logits at the start).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Strides of the taps; one more level is made of the last.
STRIDES = (8, 16, 32)
N_LEVELS = len(STRIDES) + 1
#: Shapes that each place of each level proposes.
N_SHAPES = 3
#: Channels of the pyramid.
_WIDTH = 96
#: Unit steps of the convolutions' outputs, as shares of a shape's sides: SSD's variances.
STEP_MIDDLE, STEP_SIZE = 0.1, 0.2
#: Sides of the shapes of a level before they are fitted, as shares of the view's.
_FIRST_SIDES = (0.06, 0.14, 0.3, 0.6)
#: Probability of each label at the start: few places show anything.
_PRIOR = 0.01


def separable(channels: int, stride: int = 1) -> nn.Sequential:
    """A depthwise convolution and a pointwise one, each with ReLU6."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels),
        nn.ReLU6(),
        nn.Conv2d(channels, channels, 1),
        nn.ReLU6(),
    )


class BoxHead(nn.Module):
    """From maps of `STRIDES` to boxes and logits.

    Attributes:
        shapes: (levels, shapes, 2) width and height, as shares of the view's side; fitted to the
            train split before the first step.
    """

    def __init__(self, channels: Sequence[int], n_labels: int) -> None:
        super().__init__()
        self.n_values = 4 + n_labels
        self.lateral = nn.ModuleList(nn.Conv2d(each, _WIDTH, 1) for each in channels)
        self.coarser = separable(_WIDTH, stride=2)
        self.smooth = nn.ModuleList(separable(_WIDTH) for _ in range(N_LEVELS))
        self.says = nn.ModuleList(
            nn.Conv2d(_WIDTH, N_SHAPES * self.n_values, 1) for _ in range(N_LEVELS)
        )
        first = torch.tensor(_FIRST_SIDES)[:, None, None].expand(N_LEVELS, N_SHAPES, 2)
        self.shapes: Tensor
        self.register_buffer("shapes", first.clone())
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(
                    layer.weight, mode="fan_out" if layer.groups == 1 else "fan_in"
                )
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        for layer in self.says:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            with torch.no_grad():
                of_shapes = layer.bias.view(N_SHAPES, self.n_values)
                of_shapes[:, 4:] = -math.log((1 - _PRIOR) / _PRIOR)

    def forward(self, *maps: Tensor) -> Tensor:
        """(n, places, 4 + labels)."""
        levels = [layer(each) for layer, each in zip(self.lateral, maps, strict=True)]
        for finer in range(len(levels) - 2, -1, -1):
            above = functional.interpolate(levels[finer + 1], scale_factor=2, mode="nearest")
            levels[finer] = levels[finer] + above
        levels.append(self.coarser(levels[-1]))
        said = []
        for smooth, says, level in zip(self.smooth, self.says, levels, strict=True):
            values = says(smooth(level))
            # (n, shapes * values, h, w) to (n, h * w * shapes, values)
            n, _, h, w = values.shape
            # -1 says nothing of no picture, as one of several processes may have.
            n_places = -1 if n else h * w * N_SHAPES
            said.append(values.permute(0, 2, 3, 1).reshape(n, n_places, self.n_values))
        sizes = [(int(level.shape[2]), int(level.shape[3])) for level in levels]
        scale, shift = self.frame(sizes)
        return torch.cat(said, dim=1) / scale - shift

    def frame(self, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """What the convolutions' values are divided by, then what is taken off: (places, values).

        Args:
            sizes: height and width of each level's map.
        """
        shapes = places_of(sizes, self.shapes)
        ones = shapes.new_ones(len(shapes), self.n_values - 4)
        steps = [1 / (STEP_MIDDLE * shapes[:, 2:]), torch.full_like(shapes[:, 2:], 1 / STEP_SIZE)]
        shift = [-shapes[:, :2], -torch.log(shapes[:, 2:]), 0 * ones]
        return torch.cat([*steps, ones], dim=1), torch.cat(shift, dim=1)


def places_of(sizes: Sequence[tuple[int, int]], shapes: Tensor) -> Tensor:
    """(places, 4) proposed boxes: middle x and y, width and height, as shares of the view's side.

    Args:
        sizes: height and width of each level's map.
        shapes: (levels, shapes, 2).
    """
    found = []
    for (height, width), of_level in zip(sizes, shapes, strict=True):
        y = (torch.arange(height, device=shapes.device) + 0.5) / height
        x = (torch.arange(width, device=shapes.device) + 0.5) / width
        middles = torch.cartesian_prod(y, x).flip(1)
        n, m = len(middles), len(of_level)
        pairs = [middles[:, None].expand(n, m, 2), of_level[None].expand(n, m, 2)]
        found.append(torch.cat(pairs, dim=2).reshape(n * m, 4))
    return torch.cat(found)


def map_sizes(side_px: int) -> list[tuple[int, int]]:
    """Height and width of each level's map for a square view."""
    # The coarsest is made by a convolution of stride 2, which rounds up.
    sides = [side_px // stride for stride in STRIDES]
    return [(side, side) for side in (*sides, -(-sides[-1] // 2))]

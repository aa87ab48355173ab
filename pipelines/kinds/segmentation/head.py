"""What stands on the maps of a backbone: a lite reduced ASPP, and one level more."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Strides of the taps, from the finest.
STRIDES = (8, 16, 32)
#: Channels of the gated map, as of LR-ASPP.
_WIDTH = 128


class MaskHead(nn.Module):
    """Logits of each label at stride 8.

    The deepest map is gated by its own mean and becomes logits; those are enlarged and join what a
    1x1 convolution reads in the next finer map, twice. Labels are read before maps are enlarged,
    which is the same and costs a fraction.

    References:
        Howard et al. 2019, "Searching for MobileNetV3", section 6.3 (LR-ASPP), there on strides 8
        and 16 of a network that goes no deeper; Long et al. 2015, "Fully convolutional networks for
        semantic segmentation" (the level between).
    """

    def __init__(
        self, channels: Sequence[int], n_labels: int, hidden: Sequence[int], dropout: float
    ) -> None:
        """Make it of maps with so many channels, from the finest; ``hidden`` may say its width."""
        super().__init__()
        low, middle, high = channels
        width = hidden[0] if hidden else _WIDTH
        self.bend = nn.Sequential(nn.Conv2d(high, width, 1), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(high, width, 1), nn.Sigmoid())
        self.dropout = nn.Dropout2d(dropout)
        self.high = nn.Conv2d(width, n_labels, 1)
        self.middle = nn.Conv2d(middle, n_labels, 1)
        self.low = nn.Conv2d(low, n_labels, 1)
        for layer in (self.high, self.middle, self.low):
            # Small: the first steps then follow the features, not the draw.
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
        """Maps, (n, c, h, w), of strides 8, 16 and 32, to (n, n_labels, h, w) at stride 8."""
        logits = self.high(self.dropout(self.bend(high) * self.gate(high)))
        logits = _enlarged(logits) + self.middle(middle)
        logits = _enlarged(logits) + self.low(low)
        return torch.as_tensor(logits)


def _enlarged(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)

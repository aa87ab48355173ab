"""Backbones by name: a plain dictionary from torchvision's builder name to a `Backbone`.

A backbone is a row of blocks. A cut splits the row into a trunk, which stays frozen and whose
output can be cached, and a tail, which is trained. Adding a backbone is one entry here and one in
`pipelines.backbones.weights`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from pipelines.backbones.vision import torchvision_models
from pipelines.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Backbone:
    """How to build a network without its classifier.

    Attributes:
        build: gives the blocks, untrained, in order.
        default_cut: first block of the tail; the block that goes from stride 16 to stride 32, so
            that a cached activation is small and the tail holds most of the parameters.
        n_features: channels of the last block's output.
        prefix: of the block's parameters in torchvision's state dict, e.g. ``features``.
    """

    build: Callable[[], list[nn.Module]]
    default_cut: int
    n_features: int
    prefix: str


def _features(builder: str) -> Callable[[], list[nn.Module]]:
    return lambda: list(getattr(torchvision_models(), builder)().features)


BACKBONES: dict[str, Backbone] = {
    "mobilenet_v2": Backbone(_features("mobilenet_v2"), 14, 1280, "features"),
    "mobilenet_v3_small": Backbone(_features("mobilenet_v3_small"), 9, 576, "features"),
    "mobilenet_v3_large": Backbone(_features("mobilenet_v3_large"), 13, 960, "features"),
    "mnasnet1_0": Backbone(
        lambda: list(torchvision_models().mnasnet1_0().layers), 12, 1280, "layers"
    ),
}


def backbone(name: str) -> Backbone:
    """The backbone of that name.

    Args:
        name: torchvision's builder name.

    Raises:
        ConfigError: if there is none; lists those that are.
    """
    if name not in BACKBONES:
        raise ConfigError(
            f"params.yaml: train.backbone: there is no backbone {name!r}. "
            f"Expected one of {', '.join(BACKBONES)}."
        )
    return BACKBONES[name]

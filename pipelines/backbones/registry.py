"""Backbones by name: a plain dictionary from torchvision's builder name to a `Backbone`.

A backbone is a row of blocks. A cut splits the row into a trunk, which stays frozen and whose
output can be cached, and a tail, which is trained. Adding a backbone is one entry here and one in
`pipelines.backbones.weights`.

Here is the one door to torchvision, too. Its wheel on the package index is built against a CUDA
torch. On a CPU torch its import fails with ``operator torchvision::nms does not exist``, because it
registers a fake kernel for two operators that its compiled half would have declared. Declaring
their schemas first mends that (pytorch/vision#9077, #9085; ADR 0002). Beside the torch that it was
built for, the compiled half declares them itself, and a second declaration would abort the process.
timm imports torchvision, so it comes through here too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from pipelines.errors import ConfigError

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: Kept alive: the declarations go when their library object goes.
_DECLARED: list[torch.library.Library] = []


def torchvision_models() -> ModuleType:
    """``torchvision.models``, imported safely."""
    _declare_missing_operators()
    return importlib.import_module("torchvision.models")


def timm() -> ModuleType:
    """``timm``, imported safely."""
    _declare_missing_operators()
    return importlib.import_module("timm")


def _declare_missing_operators() -> None:
    if _DECLARED:
        return
    _load_compiled_half()
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    _DECLARED.append(library)


def _load_compiled_half() -> None:
    """As torchvision's own import does it; the library of another torch is an `OSError`."""
    spec = importlib.util.find_spec("torchvision")
    if spec is not None and spec.origin is not None:
        for file in Path(spec.origin).parent.glob("_C.*"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]


# -- registry -------------------------------------------------------------------------------------
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

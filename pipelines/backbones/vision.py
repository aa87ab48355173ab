"""The one door to torchvision.

The wheel of torchvision on the package index is built against a CUDA torch. On a CPU torch its
import fails with ``operator torchvision::nms does not exist``, because it registers a fake kernel
for two operators that its compiled half would have declared. Declaring their schemas first mends
that (pytorch/vision#9077, #9085; ADR 0002). timm imports torchvision, so it comes through here too.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

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
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    _DECLARED.append(library)

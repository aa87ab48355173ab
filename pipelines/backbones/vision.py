"""The one door to torchvision.

The wheel of torchvision on the package index is built against a CUDA torch. On a CPU torch its
import fails with ``operator torchvision::nms does not exist``, because it registers a fake kernel
for two operators that its compiled half would have declared. Declaring their schemas first mends
that (pytorch/vision#9077, #9085; ADR 0002). Beside the torch that it was built for, the compiled
half declares them itself, and a second declaration would abort the process. timm imports
torchvision, so it comes through here too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path
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

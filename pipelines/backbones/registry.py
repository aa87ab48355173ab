"""Backbones by name, and the one door to torchvision and timm.

The files of ``families`` are found by looking, and nothing lists them: adding a backbone is one
entry there, which re-runs no stage of a task that uses another (`pipelines.stages.code`).

torchvision's wheel on the package index is built against a CUDA torch. On a CPU torch its import
fails with ``operator torchvision::nms does not exist``, because it registers a fake kernel for two
operators that its compiled half would have declared. Declaring their schemas first mends that
(pytorch/vision#9077, #9085; ADR 0002). Beside the torch that it was built for, the compiled half
declares them itself, and a second declaration would abort the process. timm imports torchvision, so
it comes through here too.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pipelines.backbones.spec import BackboneSpec
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: Kept alive: the declarations go when their library object goes.
_DECLARED: list[torch.library.Library] = []
_FAMILIES = "pipelines.backbones.families"


def torchvision_models() -> ModuleType:
    """``torchvision.models``, imported safely."""
    _declare_missing_operators()
    return importlib.import_module("torchvision.models")


def timm() -> ModuleType:
    """``timm``, imported safely."""
    _declare_missing_operators()
    return importlib.import_module("timm")


def _declare_missing_operators() -> None:
    # torch takes seconds to load; who only asks for names does without.
    import torch

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
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is not None and spec.origin is not None:
        for file in Path(spec.origin).parent.glob("_C.*"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]


def torchvision_blocks(builder: str, row: str) -> Callable[[], list[nn.Module]]:
    """Builds the blocks of one of torchvision's networks.

    Args:
        builder: a function of ``torchvision.models``.
        row: attribute of the network that holds the blocks in order.
    """
    return lambda: list(getattr(getattr(torchvision_models(), builder)(), row))


@cache
def backbones() -> dict[str, BackboneSpec]:
    """Every backbone by name, family by family."""
    package = importlib.import_module(_FAMILIES)
    found = {}
    for module in pkgutil.iter_modules(package.__path__, f"{_FAMILIES}."):
        for entry in vars(importlib.import_module(module.name)).values():
            if isinstance(entry, BackboneSpec):
                found[entry.name] = entry
    return found


def backbone(name: str) -> BackboneSpec:
    """The backbone of that name.

    Args:
        name: of its entry.

    Raises:
        ConfigError: if there is none; lists those that are.
    """
    known = backbones()
    if name not in known:
        raise ConfigError(
            f"params.yaml: train.backbone: there is no backbone {name!r}. "
            f"Expected one of {', '.join(known)}."
        )
    return known[name]

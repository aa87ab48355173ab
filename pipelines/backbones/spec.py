"""Backbones by name, what is found out by asking them, and the one door to torchvision and timm.

A backbone is a row of blocks. A cut splits the row into a trunk, which stays frozen and whose
output can be cached, and a tail, which is trained. Where a network has layers behind its pool (the
``conv_head`` of timm's MobileNetV3), they are its last block, a `BehindPool`: they belong to the
embedding. Strides, channels, the default cut and the embedding's width are never typed by hand: the
network is run on a tensor that has a shape and no values.

The files of ``families`` are found by looking, and nothing lists them: adding a backbone is one
entry there, which re-runs no stage of a task that uses another (`pipelines.stages.code`).

torchvision's wheel on the package index is built against a CUDA torch. On a CPU torch its import
fails with ``operator torchvision::nms does not exist``, because it registers a fake kernel for two
operators that its compiled half would have declared. Declaring their schemas first mends that
(pytorch/vision#9077, #9085; ADR 0002). Beside the torch that it was built for, the compiled half
declares them itself, and a second declaration would abort the process. timm imports torchvision, so
it comes through here too.

References:
    timm's ``FeatureInfo`` (timm.models._features), whose strides and channels these taps have; but
    it counts MobileNetV3's last 1x1 convolution, and not MobileNetV2's.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Literal

from pipelines.backbones.architecture import is_line
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipelines.backbones.weights import Provider
    from pipelines.data.preprocess import Interpolation

Padding = Literal["symmetric", "same"]
#: Mean and standard deviation of ImageNet's training images, RGB in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FAMILIES = "pipelines.backbones.families"
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
#: Kept alive: the declarations go when their library object goes.
_DECLARED: list[torch.library.Library] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The pixels that a backbone's weights were trained on.

    Attributes:
        px: side of the square, a multiple of 32.
        mean: RGB, of pixels in [0, 1].
        std: RGB, of pixels in [0, 1].
        interpolation: of the resize before the crop.
        padding: ``symmetric`` as torch pads; ``same`` as TensorFlow does, see `heads`.
    """

    px: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Interpolation = "bilinear"
    padding: Padding = "symmetric"


@dataclass(frozen=True, slots=True)
class Tap:
    """Where features of one stride leave the network.

    Attributes:
        block: index of the last block of that stride, without those at the network's end that only
            mix channels for a classifier.
        channels: of its output.
    """

    block: int
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """What is to be had of a backbone at one width.

    Attributes:
        input: what its weights want to see.
        weights: providers of `imagenet` weights, in the order in which they are tried.
    """

    input: Input = Input()
    weights: tuple[Provider, ...] = ()


# Compared by identity, so that what is found out about it can be kept.
@dataclass(frozen=True, kw_only=True, eq=False)
class BackboneSpec:
    """One backbone: an entry of its family's file.

    Attributes:
        name: by which params.yaml names it; the entry's name in the file, too.
        family: stem of the file in ``families``.
        build: gives the blocks, untrained, in order, at a width and for a padding; a `BehindPool`
            may be the last.
        licence: SPDX identifier of the network's code.
        widths: by width multiplier (the paper's alpha), those that there are.
        inherits: the backbone that its weights are cut out of, so that all of it must be trained,
            its norms' statistics too; None for one with weights of its own.
        cut_out: by which a provider of that backbone's weights becomes one of its own.
    """

    name: str
    family: str
    build: Callable[[float, Padding], list[nn.Module]]
    licence: str
    widths: Mapping[float, Pretrained]
    inherits: str | None = None
    cut_out: Callable[[Provider], Provider] = lambda provider: provider

    def at(self, width: float) -> Backbone:
        """The network of one width.

        Raises:
            ConfigError: if its paper has no such width; lists those that are.
        """
        if width not in self.widths:
            known = ", ".join(f"{each:g}" for each in self.widths)
            raise ConfigError(
                f"params.yaml: train.width: {self.name} has no width {width:g}. "
                f"Expected one of {known}."
            )
        return _at(self, width)


@cache
def _at(spec: BackboneSpec, width: float) -> Backbone:
    return Backbone(spec, width)


class Backbone:
    """A network of one width, and what is found out by asking it.

    Attributes:
        spec: its entry.
        width: multiplier of its channels.
        input: what its weights want to see.
        weights: providers of `imagenet` weights, in the order in which they are tried.
    """

    def __init__(self, spec: BackboneSpec, width: float) -> None:
        self.spec = spec
        self.width = width
        self.input = spec.widths[width].input
        self.weights = spec.widths[width].weights

    @property
    def title(self) -> str:
        """Its name, and its width where that is not 1."""
        # Not at the top: who lists networks needs no pydantic.
        from pipelines.serving.bundle import title_of

        return title_of(self.spec.name, self.width)

    def build(self) -> list[nn.Module]:
        """The blocks, untrained, in order."""
        return self.spec.build(self.width, self.input.padding)

    @cached_property
    def taps(self) -> Mapping[int, Tap]:
        """Taps by stride, from 2 up, as far as the network goes down.

        A stride is the next power of two: networks that do not pad give a pixel less.
        """
        from torch import nn

        blocks, shapes = self._blocks, self._own_shapes

        def has_kernel(block: nn.Module) -> bool:
            convolutions = (m for m in block.modules() if isinstance(m, nn.Conv2d))
            return any(max(m.kernel_size) > 1 for m in convolutions)

        # What follows the last kernel only mixes channels.
        last = max(index for index, block in enumerate(blocks) if has_kernel(block))
        strides = [2 ** round(math.log2(self.input.px / shape[2])) for shape in shapes[: last + 1]]
        return MappingProxyType(
            {
                stride: Tap(index, shapes[index][1])
                for index, stride in enumerate(strides)
                if stride > 1
            }
        )

    def channels_at(self, strides: Sequence[int]) -> list[int]:
        """Channels of the taps that a head stands on.

        Raises:
            ConfigError: if the network has no map of a stride.
        """
        missing = [stride for stride in strides if stride not in self.taps]
        if missing:
            raise ConfigError(
                f"params.yaml: train.backbone: {self.title} has no maps of stride "
                f"{', '.join(map(str, missing))}, which the task's head reads. Choose another."
            )
        return [self.taps[stride].channels for stride in strides]

    @property
    def default_cut(self) -> int:
        """First block of the tail: the one that goes from the last stride but one to the last.

        A cached activation is small there, and the tail holds most of the parameters.
        """
        return self.taps[sorted(self.taps)[-2]].block + 1

    @property
    def n_features(self) -> int:
        """Width of the embedding."""
        return self._own_shapes[-1][1]

    @cached_property
    def _own_shapes(self) -> list[tuple[int, ...]]:
        return self.shapes(self.input.px)

    @cached_property
    def _blocks(self) -> list[nn.Module]:
        import torch

        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return [block.eval() for block in self.build()]

    def shapes(self, px: int) -> list[tuple[int, ...]]:
        """(n, c, h, w) of each block's output.

        Args:
            px: side of the input.

        Raises:
            ConfigError: if the network goes deeper than such an input allows.
        """
        import torch

        shapes = []
        values = torch.empty(1, 3, px, px, device="meta")
        with torch.inference_mode():
            for index, block in enumerate(self._blocks):
                try:
                    values = block(values)
                # What a kernel that is larger than its input raises.
                except RuntimeError as err:
                    raise ConfigError(
                        f"params.yaml: train.image_px: {self.title} is too deep for {px} px: "
                        f"nothing is left at block {index}. Its weights were trained on "
                        f"{self.input.px} px."
                    ) from err
                shapes.append(tuple(values.shape))
        return shapes


# -- torchvision and timm -------------------------------------------------------------------------
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


def all_widths() -> list[Backbone]:
    """Every backbone at every width, narrow ones first."""
    return [spec.at(width) for spec in backbones().values() for width in sorted(spec.widths)]


def backbone(name: str, width: float = 1.0) -> Backbone:
    """The backbone of that name and width.

    Args:
        name: of an entry, or a line that describes a network (`pipelines.backbones.architecture`).
        width: multiplier of its channels.

    Raises:
        ConfigError: if there is none; lists those that are.
    """
    if is_line(name):
        spec: BackboneSpec = importlib.import_module(f"{_FAMILIES}.searched").described(name)
        return spec.at(width)
    known = backbones()
    if name not in known:
        raise ConfigError(
            f"params.yaml: train.backbone: there is no backbone {name!r}. "
            f"Expected one of {', '.join(known)}."
        )
    return known[name].at(width)

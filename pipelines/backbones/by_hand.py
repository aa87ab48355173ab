"""Files of weights that somebody brings: which network they are of, and how they are taken in.

A file that one of the network's providers knows by its hash is kept as that provider's, and the
provider finds it. Any other is held against the names and shapes of the networks that are known
for it, torchvision's, timm's and our own row of blocks, and kept under the names of our blocks.
"""

from __future__ import annotations

import hashlib
import io
from _pickle import UnpicklingError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pipelines.atomic import write_bytes
from pipelines.backbones.spec import Backbone, timm, torchvision_models
from pipelines.backbones.weights import (
    N_DIGITS,
    Imported,
    LocalFile,
    Provider,
    TimmFile,
    TimmHub,
    TorchHub,
    WheelMember,
    imported_name,
)
from pipelines.errors import MissingDataError, WeightsError

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class _Layout:
    """A network whose file it may be.

    Attributes:
        of: whose names they are, in words.
        shapes: by name, the blocks' first, in the order of our blocks.
        n_blocks: how many of them are the blocks'.
    """

    of: str
    shapes: dict[str, tuple[int, ...]]
    n_blocks: int

    @property
    def block_names(self) -> list[str]:
        return list(self.shapes)[: self.n_blocks]

    def fault(self, state: dict[str, Tensor]) -> str | None:
        """What speaks against a file: that which concerns most of its tensors."""
        blocks = set(self.block_names)
        wrong = [n for n, t in state.items() if n in self.shapes and t.shape != self.shapes[n]]
        unknown = [name for name in state if name not in self.shapes]
        absent = [n for n in self.block_names if n not in state and not n.endswith(_COUNTER)]
        most = max(wrong, unknown, absent, key=len)
        if not most:
            return None
        name = most[0]
        if most is unknown:
            return f"{len(unknown)} of its tensors are not in {self.of}, e.g. {name}"
        if most is absent:
            return f"it lacks {len(absent)} tensors of {self.of}, e.g. {name}"
        part = "" if blocks.intersection(wrong) else "its classifier is another's: "
        name = next((each for each in wrong if each in blocks), name)
        return (
            f"{part}{name} has the shape {tuple(state[name].shape)}; expected {self.shapes[name]}"
        )


def import_file(network: Backbone, file: Path, weights_dir: Path, licence: str) -> Provider:
    """The provider that finds a file from now on.

    Args:
        network: that the file is of.
        file: safetensors, or what ``torch.save`` makes of tensors by name.
        weights_dir: where it is kept.
        licence: SPDX identifier of the weights, for one that no provider knows.

    Raises:
        MissingDataError: if there is no such file.
        WeightsError: if it is of another network, width or classifier, or damaged.
        StorageError: if the disk is full; what was there stays.
    """
    from safetensors.torch import save

    if not file.is_file():
        raise MissingDataError(f"{file}: there is no such file. Expected a file of weights.")
    data = file.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    for provider in network.weights:
        if isinstance(
            provider, LocalFile | TimmFile | WheelMember | TorchHub
        ) and sha256.startswith(provider.sha256):
            write_bytes(weights_dir / provider.name, data)
            return provider
    tensors = _as_blocks(network, _read(file, data), file)
    data = save(tensors, metadata={"licence": licence})
    path = weights_dir / imported_name(network, hashlib.sha256(data).hexdigest()[:N_DIGITS])
    write_bytes(path, data)
    for old in weights_dir.glob(imported_name(network, "*")):
        if old != path:
            old.unlink()
    return Imported(path)


def _read(file: Path, data: bytes) -> dict[str, Tensor]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        loaded: object = load(data)
    except SafetensorError:
        try:
            loaded = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        # What torch says of bytes that are no file of its own, or of one that would run code.
        except (UnpicklingError, RuntimeError, ValueError, EOFError, LookupError):
            loaded = None
    if not isinstance(loaded, dict) or not all(
        isinstance(tensor, torch.Tensor) for tensor in loaded.values()
    ):
        raise WeightsError(
            f"{file}: expected tensors by name, as safetensors or saved by torch; got something "
            f"else. Fetch it again, or save the network's state_dict alone."
        )
    bad = [name for name, tensor in loaded.items() if not tensor.isfinite().all()]
    if bad:
        raise WeightsError(f"{file}: {bad[0]} has values that are no numbers. Fetch it again.")
    return loaded


def _as_blocks(network: Backbone, state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The tensors of the blocks under the names of ours."""
    import torch

    layouts = _layouts(network)
    closest = max(layouts, key=lambda layout: len(layout.shapes.keys() & state.keys()))
    fault = closest.fault(state)
    if fault is not None:
        fitting = (
            width
            for width in network.spec.widths
            if width != network.width
            for layout in _layouts(network.spec.at(width))
            if layout.fault(state) is None
        )
        width = next(fitting, None)
        step = "Name the network that it is of" if width is None else f"Say --width {width:g}"
        raise WeightsError(f"{file}: is no file of {network.title}: {fault}. {step}.")
    names = layouts[0].block_names
    # Older files lack the counters, which nothing reads.
    return {
        ours: state[theirs].float().contiguous() if theirs in state else torch.tensor(0)
        for ours, theirs in zip(names, closest.block_names, strict=True)
    }


def _layouts(network: Backbone) -> list[_Layout]:
    """Our own names, then those of the networks that the providers' files are of."""
    import torch
    from torch import nn

    # A list: a generator would leave its caller on that device.
    with torch.device("meta"):
        own = _shapes(nn.ModuleList(network.build()))
        layouts = [_Layout(network.title, own, len(own))]
        for provider in network.weights:
            whole: nn.Module
            if isinstance(provider, TorchHub):
                whole = getattr(torchvision_models(), provider.builder)()
                of = f"torchvision's {provider.builder}"
            elif isinstance(provider, TimmFile | TimmHub):
                whole = cast("nn.Module", timm().create_model(provider.model))
                of = f"timm's {provider.model}"
            else:
                continue
            layouts.append(_Layout(of, _shapes(whole), len(own)))
    return layouts


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}

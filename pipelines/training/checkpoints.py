"""The state of a training after an epoch, in one safetensors file that is replaced as a whole.

Nothing is pickled: tensors by name, everything else as JSON in the file's header. Random numbers
are drawn from (seed, phase, epoch), so that no generator's state has to be kept.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pipelines.atomic import write_bytes

_NAME = "checkpoint.safetensors"


@dataclass(slots=True)
class Checkpoint:
    """All that a killed training needs to go on.

    Attributes:
        epoch: epochs of that phase that are done.
        average: moving average of the parameters; empty if it is off.
        optimizer: state tensors, as ``<parameter index>.<name>``.
        progress: best value, epochs without a better one, history rows: JSON values only.
    """

    phase: int
    epoch: int
    model: dict[str, Tensor]
    best: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    progress: dict[str, Any] = field(default_factory=dict)


_PARTS = ("model", "best", "average", "optimizer")


def save_checkpoint(folder: Path, key: str, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of a training, whose key is a hash of all that it depends on.

    Raises:
        StorageError: if the disk is full; the old checkpoint stays.
    """
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().clone().contiguous()
        for part in _PARTS
        for name, tensor in getattr(checkpoint, part).items()
    }
    header = {
        "phase": checkpoint.phase,
        "epoch": checkpoint.epoch,
        "key": key,
        "progress": checkpoint.progress,
    }
    write_bytes(folder / _NAME, save(tensors, metadata={"checkpoint": json.dumps(header)}))


def load_checkpoint(folder: Path, key: str) -> Checkpoint | None:
    """The checkpoint of a training, or None if there is none of the same key."""
    path = folder / _NAME
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stream:
            header = json.loads((stream.metadata() or {})["checkpoint"])
            if header["key"] != key:
                return None
            parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
            for name in stream.keys():  # noqa: SIM118 (not a mapping)
                part, _, rest = name.partition("/")
                parts[part][rest] = stream.get_tensor(name)
        return Checkpoint(header["phase"], header["epoch"], **parts, progress=header["progress"])
    except (SafetensorError, KeyError, ValueError):
        # Another version's file: it cannot be gone on from, and nothing is lost by starting anew.
        return None


def drop_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a training that has finished."""
    shutil.rmtree(folder, ignore_errors=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state as flat tensors of an optimiser that holds nothing else: AdamW, SGD, RMSprop."""
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put flat tensors back into an optimiser of the same parameters."""
    whole = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})

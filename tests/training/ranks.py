"""One process of a training of the tiny project; prints what it wrote below the project's root.

As many as ``world`` of them agree over gloo, each seeing all images: how to share them is not what
is asked here.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import distributed

from pipelines.config.train import TrainParams
from pipelines.paths import Paths
from pipelines.stages import train
from pipelines.training.runtime import Runtime, set_up_torch

_WRITING = os.O_WRONLY | os.O_RDWR
#: Audit events (https://docs.python.org/3/library/audit_events.html) of a change on disk.
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}


def summed(tensor: torch.Tensor) -> torch.Tensor:
    distributed.all_reduce(tensor)
    return tensor


def main(root: str, rank: str, world: str, params: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{root}-{world}", rank=int(rank), world_size=int(world)
    )
    runtime = Runtime(int(rank), int(world), reduce=summed, barrier=distributed.barrier)
    set_up_torch(1)
    written = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        is_change = event in _CHANGES or (event == "open" and bool(arguments[2] & _WRITING))
        if is_change:
            # Where something is renamed, the second is its new name.
            paths = [str(each) for each in arguments[:2] if str(each).startswith(root)]
            written.extend(os.path.relpath(path, root) for path in paths)

    sys.addaudithook(note)
    asked = TrainParams.model_validate(json.loads(params))
    train.run("tiny", "reference", asked, 7, Paths(Path(root)), runtime)
    sys.stdout.write(json.dumps({"written": written, "has_mlflow": "mlflow" in sys.modules}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])

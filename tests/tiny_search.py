"""The tiny task with a search of seconds; weights of MobileNetV2 that somebody has put there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipelines.backbones.by_hand import import_file
from pipelines.backbones.spec import backbone
from pipelines.paths import Paths
from tests.backbones.toy_family import as_pretrained
from tests.tiny_board import make_project

SEARCH: dict[str, Any] = {
    "controller": "reinforce",
    "space": {"image_px": [32], "squeeze": False},
    "warm_up": {"steps": 2, "batch_size": 4, "n_random": 1},
    "candidates": 4,
    "elites": 2,
    "finalists": 1,
    "norm_images": 8,
    "finalist": {"epochs": 1},
    "precision": "fp32",
}


def make_search(tiny_project: Paths, folder: Path, **board: Any) -> Paths:
    """params.yaml and weights.

    Args:
        folder: for the file that is taken in.
        board: laid over its section.
    """
    make_project(tiny_project, **board)
    document = json.loads(tiny_project.params.read_text())
    document["tasks"]["tiny"]["search"] = SEARCH
    document["tasks"]["tiny"]["train"]["weights"] = "imagenet"
    tiny_project.params.write_text(json.dumps(document))
    base = backbone("mobilenet_v2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = as_pretrained(base.build()).state_dict()
    file = folder / "v2.safetensors"
    save_file(dict(state), file)
    import_file(base, file, tiny_project.weights_dir, "CC0-1.0")
    return tiny_project

"""The trained models and their pictures, of the folder that ``FIELDLENS_ROOT`` names.

The checkout by default; e.g. ``.real`` for those of real images.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.card import DEFAULT_KIND, load_card
from pipelines.config.params import load_params
from pipelines.data.manifest import in_split, read_manifest
from pipelines.paths import Paths, TaskPaths

CHECKOUT = Path(__file__).resolve().parents[2]
PATHS = Paths(Path(os.environ.get("FIELDLENS_ROOT", CHECKOUT)))
TASKS = list(load_params(PATHS.params).tasks)
#: Others are neither explained nor stressed, and have no logits.
CLASSIFICATIONS = [task for task in TASKS if load_card(PATHS.task(task).card).kind == DEFAULT_KIND]


def trained(task: str) -> TaskPaths:
    """The files of a task that has a model and images; skips with the reason otherwise."""
    files = PATHS.task(task)
    if not files.bundle.is_file():
        pytest.skip(f"{files.bundle}: there is no model; `dvc repro evaluate@{task}` makes it")
    if not files.manifest.is_file():
        pytest.skip(f"{files.manifest}: there are no images; `dvc repro prepare@{task}` makes it")
    return files


def pictures_of(files: TaskPaths) -> list[Path]:
    return [files.raw_dir / entry.path for entry in in_split(read_manifest(files.manifest), "test")]

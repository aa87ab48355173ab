"""A prepared task of colours, and a network for it that trains and exports in seconds."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from pipelines.backbones.spec import backbones
from pipelines.config.board import BoardParams
from pipelines.config.export import ExportParams
from pipelines.config.train import TrainParams
from pipelines.paths import Paths
from pipelines.search.objective import Objective
from pipelines.training.job import Data
from tests.backbones.toy_family import toy
from tests.tiny_params import PARAMS, PHASE

LABELS = ["red_tile", "green_tile", "blue_tile"]
SHORT = {**PHASE, "epochs": 2, "warmup_fraction": 0.0}
EXPORT = {
    "calibration_images": 12,
    "remedies": ["minmax"],
    "min_agreement": 0.0,
    "max_accuracy_drop": 1.0,
    "max_macro_f1_drop": 1.0,
    "max_int8_bytes": 1,
    "min_speedup": 0.001,
    "acceptance": 0.95,
}
BOARD = {
    "backbones": {"toy": [1.0, 0.5]},
    "image_px": [32],
    "resamples": 200,
    "reference": {"backbone": "toy", "image_px": 64},
}


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def objective_of(tiny_project: Paths, tmp_path, monkeypatch) -> Callable[..., Objective]:
    """Makes the objective of the tiny task, with other board params where they are named."""
    entry = toy(tmp_path / "weights")
    widths = {width: entry.widths[1.0] for width in (1.0, 0.5)}
    monkeypatch.setitem(backbones(), "toy", replace(entry, widths=widths))
    files = tiny_project.task("tiny")
    files.prepare_summary.write_text(json.dumps({"labels": LABELS, "data_source": "sample"}))
    own = {"backbone": "toy", "strategy": "full", "views": 1, "batch_size": 6}
    train = PARAMS | own | {"head_phase": SHORT, "tail_phase": SHORT}

    def make(**board: Any) -> Objective:
        return Objective(
            task="tiny",
            domain="reference",
            train=TrainParams.model_validate(train),
            export=ExportParams.model_validate(EXPORT),
            board=BoardParams.model_validate(BOARD | board),
            seed=7,
            data=Data.read(files),
            paths=tiny_project,
        )

    return make

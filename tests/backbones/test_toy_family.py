"""A backbone is one entry: train, export, int8 and predict know nothing of it but its name."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.backbones.spec import backbones
from pipelines.config.export import ExportParams
from pipelines.config.train import TrainParams
from pipelines.data.manifest import in_split, read_manifest
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.stages import export, train
from pipelines.training.float_model import load_float_model
from tests.backbones.toy_family import toy
from tests.stages.test_export import CARD
from tests.tiny_params import PARAMS, PHASE

LABELS = ["red_tile", "green_tile", "blue_tile"]
#: Twelve pictures, six a step: two steps.
ONE = {**PHASE, "epochs": 1, "warmup_fraction": 0.0}
TRAIN = {
    **PARAMS,
    "backbone": "toy",
    "weights": "imagenet",
    "image_px": 64,
    "batch_size": 6,
    "calibration_images": 12,
    "head_phase": ONE,
    "tail_phase": ONE,
}
EXPORT = {
    "calibration_images": 12,
    "remedies": ["float_stem+equalize+round"],
    "min_agreement": 0.9,
    "max_accuracy_drop": 0.1,
    "max_macro_f1_drop": 0.1,
    "max_int8_bytes": 10**6,
    "min_speedup": 0.001,
    "acceptance": 0.95,
}


@pytest.fixture
def project(tiny_project: Paths, monkeypatch: pytest.MonkeyPatch) -> Paths:
    files = tiny_project.task("tiny")
    files.card.write_text(CARD)
    files.prepare_summary.write_text(json.dumps({"labels": LABELS, "data_source": "sample"}))
    for path in files.mobile_dir.iterdir():
        path.unlink()
    monkeypatch.setitem(backbones(), "toy", toy(tiny_project.weights_dir))
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    yield tiny_project
    torch.use_deterministic_algorithms(False)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_from_its_name_to_an_answer(strategy, project):
    files = project.task("tiny")
    int8_views = 0.5 if strategy == "cached" else 0.0
    document = {**TRAIN, "strategy": strategy, "int8_views": int8_views}
    train.run("tiny", "reference", TrainParams.model_validate(document), 7, project)
    meta, model, _ = load_float_model(files.float_dir)
    assert (meta.mean, meta.std) == ((0.4, 0.5, 0.6), (0.5, 0.5, 0.5))
    assert meta.cut == 6
    assert meta.is_folded
    assert meta.unfolded == ()
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert meta.weights_licence == "MIT"

    # `export` holds the file against torch, normalisation included.
    export.run("tiny", ExportParams.model_validate(EXPORT), 7, project)
    bundle = read_bundle(files.candidate)
    assert bundle.served.precision == "int8", bundle.served.reason
    # What stands behind the pool, and what the last convolution with a kernel reads.
    assert bundle.preprocess.build() == meta.preprocess
    assert bundle.preprocess.interpolation == "bicubic"
    assert bundle.output("embedding").shape == (-1, 20 + 24)
    served = Predictor.load(files.candidate)
    entries = in_split(read_manifest(files.manifest), "test")
    pixels = np.stack([served.pixels(files.raw_dir / entry.path) for entry in entries])
    values = (torch.from_numpy(pixels) / 255 - torch.tensor(meta.mean)) / torch.tensor(meta.std)
    with torch.inference_mode():
        expected = model(values.permute(0, 3, 1, 2))[0].argmax(dim=1).numpy()
    answers = [served.predict(files.raw_dir / entry.path) for entry in entries]
    got = [LABELS.index(answer.label) for answer in answers]
    assert np.mean(got == expected) >= 0.9

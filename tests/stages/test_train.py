from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.atomic import file_sha256
from pipelines.backbones.spec import Pretrained, backbones
from pipelines.config.train import TrainParams
from pipelines.data.images import open_image
from pipelines.data.manifest import content_sha256, in_split, read_manifest
from pipelines.data.preprocess import Preprocess
from pipelines.errors import ConfigError, MissingDataError, WeightsError
from pipelines.paths import Paths, TaskPaths
from pipelines.stages import train
from pipelines.training import fit
from pipelines.training.float_model import load_float_model
from pipelines.training.job import normalise
from tests.file_tree import results
from tests.tiny_params import PARAMS, PHASE

LABELS = ["red_tile", "green_tile", "blue_tile"]
#: Of the training before a refit.
BEFORE = "before_refit.safetensors"
SHORT = {**PHASE, "epochs": 2, "warmup_fraction": 0.0}


def params(**changes) -> TrainParams:
    document = {
        **PARAMS,
        "strategy": "full",
        "views": 1,
        "batch_size": 6,
        "head": {"hidden": [], "dropout": 0.1},
        "head_phase": SHORT,
        "tail_phase": SHORT,
        "layer_decay": 0.9,
        "label_smoothing": 0.1,
        "balance": "class_weights",
    }
    return TrainParams.model_validate({**document, **changes})


@pytest.fixture(autouse=True)
def _torch_as_it_was(monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def project(tiny_project: Paths) -> Paths:
    files = tiny_project.task("tiny")
    summary = {"labels": LABELS, "data_source": "sample"}
    files.prepare_summary.write_text(json.dumps(summary))
    return tiny_project


@pytest.fixture
def files(project) -> TaskPaths:
    return project.task("tiny")


def test_train_writes_a_model_that_loads_and_says_what_it_is(project, files):
    train.run("tiny", "reference", params(), 7, project)
    meta, model, sha256 = load_float_model(files.float_dir)
    entries = read_manifest(files.manifest)
    assert meta.labels == tuple(LABELS)
    assert (meta.resize_px, meta.image_px) == (37, 32)
    assert meta.data_sha256 == content_sha256(entries)
    assert meta.n_images == {"train": 12, "val": 12, "test": 36}
    assert meta.n_groups == {"train": 6, "val": 6, "test": 18}
    assert meta.weights == "none"
    assert meta.weights_sha256 is None
    assert sha256 == file_sha256(files.float_weights)
    with files.history.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["phase"] for row in rows] == ["head", "head", "tail", "tail"]
    best = max(rows, key=lambda row: (float(row["val_macro_f1"]), -float(row["val_loss"])))
    assert meta.val["val_loss"] == pytest.approx(float(best["val_loss"]), rel=1e-4)

    # The figures are of the weights that were written.
    figures = {path.name for path in files.training_figures_dir.iterdir()}
    assert figures == {"curves.png", "val_confusion.png", "val_samples.png"}
    val = [files.raw_dir / entry.path for entry in in_split(entries, "val")]
    pixels = np.stack([Preprocess(37, 32)(open_image(path).rgb) for path in val])
    with torch.inference_mode():
        logits, _ = model(normalise(torch.from_numpy(pixels), meta.mean, meta.std))
    truth = torch.tensor([LABELS.index(e.label) for e in in_split(entries, "val")])
    loss = torch.nn.functional.cross_entropy(logits, truth).item()
    assert meta.val["val_loss"] == pytest.approx(loss, rel=1e-3)

    text = files.float_meta.read_text()
    assert str(files.root) not in text
    assert str(Path.home()) not in text
    assert not [word for word in ("time", "date", "host", "run_id") if f'"{word}' in text]
    # Nothing is left to go on from.
    assert not files.checkpoint_dir.exists()


def test_test_split_is_never_opened(project, files):
    for entry in in_split(read_manifest(files.manifest), "test"):
        (files.raw_dir / entry.path).write_bytes(b"not an image")
    asked = params(tail_phase={**SHORT, "epochs": 0}, head_phase={**SHORT, "epochs": 1})
    train.run("tiny", "reference", asked, 7, project)
    assert files.float_weights.is_file()


def test_a_refit_keeps_what_val_said_and_releases_weights_that_have_seen_it(project, files):
    train.run("tiny", "reference", params(), 7, project)
    before, _, _ = load_float_model(files.float_dir)
    kept = results(project)
    assert not before.is_refit
    assert not (files.float_dir / BEFORE).exists()

    train.run("tiny", "reference", params(refit=True), 7, project)
    after, _, _ = load_float_model(files.float_dir)
    assert after.is_refit
    assert after.val == before.val
    weights, kept_before, meta = (
        str(p.relative_to(files.root))
        for p in (files.float_weights, files.float_dir / BEFORE, files.float_meta)
    )
    now = results(project)
    assert {name for name in now if now[name] != kept.get(name)} == {weights, kept_before, meta}

    # The network that had not seen val is kept beside it.
    assert now[kept_before] == kept[weights]
    assert not files.checkpoint_dir.exists()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_two_trainings_are_the_same_bytes(strategy, project, files):
    asked = params(strategy=strategy, int8_views=0.5, views=2, mixup_alpha=0.2, ema_decay=0.5)
    train.run("tiny", "reference", asked, 7, project)
    first = results(project)
    # Once with what the first left in the caches, once without.
    train.run("tiny", "reference", asked, 7, project)
    assert results(project) == first
    shutil.rmtree(project.cache_dir)
    train.run("tiny", "reference", asked, 7, project)
    assert results(project) == first
    train.run("tiny", "reference", asked, 8, project)
    assert results(project) != first


@pytest.mark.slow
@pytest.mark.parametrize(("is_refit", "n_done"), [(False, 3), (True, 3), (True, 4), (True, 6)])
def test_stopped_training_goes_on_to_the_same_bytes(is_refit, n_done, project, files, monkeypatch):
    # Four epochs, and four more of a refit.
    asked = params(refit=is_refit)
    train.run("tiny", "reference", asked, 7, project)
    expected = results(project)

    class Stop(Exception):
        pass

    save, n_saved = fit.save_checkpoint, 0

    def save_then_stop(*arguments):
        nonlocal n_saved
        save(*arguments)
        n_saved += 1
        if n_saved == n_done:
            raise Stop

    monkeypatch.setattr(fit, "save_checkpoint", save_then_stop)
    with pytest.raises(Stop):
        train.run("tiny", "reference", asked, 7, project)
    # The old model is still there, whole.
    assert results(project) == expected
    n_saved = 100
    train.run("tiny", "reference", asked, 7, project)
    assert n_saved == 100 + 4 * (1 + is_refit) - n_done
    assert results(project) == expected


def test_before_prepare_the_command_is_named(project, files):
    files.prepare_summary.unlink()
    with pytest.raises(MissingDataError, match="Run `fieldlens prepare tiny` first"):
        train.run("tiny", "reference", params(), 7, project)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "vgg"}, r"train\.backbone"),
        ({"cut": 40}, r"train\.cut"),
        ({"optimizer": "lion"}, r"train\.optimizer"),
    ],
)
def test_wrong_params_are_refused_and_nothing_is_written(changes, message, project, files):
    with pytest.raises(ConfigError, match=message):
        train.run("tiny", "reference", params(**changes), 7, project)
    assert not files.float_dir.exists()


def test_weights_that_cannot_be_had_are_no_random_ones(project, files, monkeypatch):
    name = "mobilenet_v3_small"
    without = replace(backbones()[name], widths={1.0: Pretrained()})
    monkeypatch.setitem(backbones(), name, without)
    with pytest.raises(WeightsError):
        train.run("tiny", "reference", params(weights="imagenet"), 7, project)
    assert not files.float_dir.exists()

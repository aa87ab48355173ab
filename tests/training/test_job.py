"""A training as a function: what it gives, what it writes, and how it is watched and ended."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipelines.atomic import file_sha256
from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD, backbones
from pipelines.config.params import load_params
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import in_split
from pipelines.data.preprocess import Preprocess, View
from pipelines.errors import ConfigError, DataError, StorageError
from pipelines.export import onnx_export
from pipelines.paths import Paths
from pipelines.serving.sessions import make_session
from pipelines.training import fit
from pipelines.training.float_model import load_float_model
from pipelines.training.job import (
    Data,
    Job,
    Observer,
    frozen_trunks,
    normalise,
    open_split,
    phases_of,
    preprocess_of,
    train,
)
from pipelines.training.runtime import Runtime
from pipelines.training.start import start_model
from tests.backbones.toy_family import toy
from tests.file_tree import file_tree
from tests.training.toy import same

ROOT = Path(__file__).resolve().parents[2]
LABELS = ["red_tile", "green_tile", "blue_tile"]
SHORT = {"epochs": 1}


@pytest.fixture
def data(tiny_project) -> Data:
    files = tiny_project.task("tiny")
    summary = {"labels": LABELS, "data_source": "sample"}
    files.prepare_summary.write_text(json.dumps(summary))
    return Data.read(files)


@pytest.fixture
def job_of(train_params):
    def make(**changes) -> Job:
        phases = {"head_phase": SHORT, "tail_phase": SHORT}
        params = train_params(**{"strategy": "full", "views": 1, **phases, **changes})
        return Job("tiny", "reference", params, 7)

    return make


class Watch(Observer):
    """Notes what it is told, and ends the training after an epoch of the refit, or of none."""

    def __init__(self, ends_after: int = 0) -> None:
        self.key, self.logs, self.refit, self._ends_after = "", [], [], ends_after

    def begun(self, key, model):
        self.key = key

    def epoch(self, log, *, is_refit):
        (self.refit if is_refit else self.logs).append(log)
        if len(self.refit) == self._ends_after > 0:
            raise KeyboardInterrupt


def run(job, data, out=None, **more):
    return train(job, data, out, runtime=Runtime(), **more)


def test_job_is_what_the_params_ask_of_a_task():
    params = load_params(ROOT / "params.yaml")
    job = Job.of(params, "weld_defect")
    assert (job.task, job.domain, job.seed) == ("weld_defect", "safety", params.seed)
    assert job.params is params.task("weld_defect").train
    with pytest.raises(ConfigError, match="weld_defects"):
        Job.of(params, "weld_defects")


def test_folder_holds_the_model_of_the_result_and_no_folder_is_written_to_without_one(
    job_of, data, tmp_path
):
    root = data.files.root
    before = file_tree(root)
    watch = Watch()
    silent = run(job_of(), data, observer=watch)
    assert file_tree(root) == before
    assert silent.weights_sha256 is None
    assert silent.before is None
    assert watch.logs == silent.history
    assert [log.phase for log in silent.history] == ["head", "tail"]
    assert silent.val_outputs.shape == (12, 3)
    assert not silent.model.training

    paths = Paths(tmp_path / "elsewhere")
    told = run(job_of(), data, tmp_path / "out", paths=paths, keep_checkpoint=True)
    assert same(told.model, silent.model)
    assert told.meta == silent.meta
    meta, model, sha256 = load_float_model(tmp_path / "out")
    assert meta == told.meta
    assert same(model, told.model)
    assert told.weights_sha256 == sha256 == file_sha256(tmp_path / "out/weights.safetensors")
    # What a caller keeps is where it said, and another call goes on from there: at once.
    assert paths.task("tiny").checkpoint_dir.is_dir()
    again = Watch()
    assert same(run(job_of(), data, paths=paths, observer=again).model, told.model)
    assert again.key == watch.key
    assert not paths.task("tiny").checkpoint_dir.exists()


@pytest.mark.parametrize("strategy", ["full", "cached"])
def test_a_refit_is_trained_through_all_epochs_on_the_images_of_both(
    strategy, job_of, data, monkeypatch
):
    trained: set[str] = set()
    views = Pictures.views

    def noting(pictures, entry, numbers, *, plain=True):
        if numbers:
            trained.add(entry.path)
        return views(pictures, entry, numbers, plain=plain)

    monkeypatch.setattr(Pictures, "views", noting)
    paths_of = {name: {e.path for e in in_split(data.entries, name)} for name in ("train", "val")}
    chosen = run(job_of(strategy=strategy), data)
    assert trained == paths_of["train"]
    watch = Watch()
    refitted = run(job_of(strategy=strategy, refit=True), data, observer=watch)
    assert trained == paths_of["train"] | paths_of["val"]
    assert [log.phase for log in watch.refit] == ["head", "tail"]
    assert all(math.isnan(log.val["val_loss"]) for log in watch.refit)
    assert not refitted.model.training
    # What val said is of the first.
    assert refitted.history == chosen.history
    assert refitted.meta.is_refit
    assert same(refitted.before, chosen.model)
    assert not same(refitted.model, chosen.model)


def test_a_refit_that_was_ended_goes_on_to_the_same_weights(job_of, data, tmp_path, monkeypatch):
    job = job_of(refit=True)
    expected = run(job, data, paths=Paths(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run(job, data, observer=Watch(ends_after=2))
    saved, save = [], fit.save_checkpoint
    monkeypatch.setattr(fit, "save_checkpoint", lambda *of: saved.append(save(*of)))
    watch = Watch()
    again = run(job, data, observer=watch)
    assert len(saved) == 1, "one epoch had no checkpoint yet, and no other is trained again"
    assert same(again.model, expected.model)
    assert same(again.before, expected.before)
    assert watch.logs == expected.history
    assert not data.files.checkpoint_dir.exists()


def test_a_label_without_a_train_image_is_refused(job_of, data):
    entries = [e for e in data.entries if (e.split, e.label) != ("train", "red_tile")]
    with pytest.raises(DataError, match=r"manifest\.csv: no train image of red_tile\. Expected"):
        run(job_of(), replace(data, entries=entries))


@pytest.mark.parametrize("is_file", [False, True])
def test_a_folder_of_other_things_is_refused_before_any_work(is_file, job_of, data, tmp_path):
    file = tmp_path / "mine" / "thesis.txt"
    file.parent.mkdir()
    file.write_text("years of work")
    with pytest.raises(StorageError, match=r"would be replaced\. Expected a folder"):
        run(job_of(), data, file if is_file else file.parent)
    assert file.read_text() == "years of work"


# -- parts -----------------------------------------------------------------------------------------
def test_normalised_pixels_are_those_that_the_exported_file_makes():
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 5, 4, 3), np.uint8))
    got = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD)
    assert got.shape == (2, 3, 5, 4)
    for channel in range(3):
        expected = (pixels[..., channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        assert torch.allclose(got[:, channel], expected, atol=1e-6)


@pytest.fixture
def toy_params(tmp_path, monkeypatch, train_params):
    """Params of a backbone that wants another input than ImageNet's."""
    monkeypatch.setitem(backbones(), "toy", toy(tmp_path / "weights"))
    return train_params(backbone="toy", weights="none", image_px=64, int8_views=0.0)


def test_each_strategy_normalises_as_the_backbones_entry_says(
    data, toy_params, tmp_path, monkeypatch
):
    split = data.split("train", Job("tiny", "reference", toy_params, 1))
    model, _ = start_model(toy_params, 3, 1, Paths(tmp_path))
    pixels = next(iter(split.pictures.batches(12)))
    values = torch.from_numpy(pixels) / 255 - torch.tensor([0.4, 0.5, 0.6])
    values = (values / 0.5).permute(0, 3, 1, 2)
    with torch.inference_mode():
        activations = model.eval().trunk(values).numpy()
        logits = model(values)[0]

    trunk = frozen_trunks(model, toy_params, split.pictures, 1, Paths(tmp_path))["fp32"]
    got = make_session(trunk).run(None, {"image": pixels})[0]
    assert activations.std() > 1e-3
    np.testing.assert_allclose(got, activations, atol=1e-4)

    full = toy_params.model_copy(update={"strategy": "full"})
    phase = phases_of("tiny", model, full, split, split, 1, Paths(tmp_path))[0]
    with torch.inference_mode():
        torch.testing.assert_close(phase.val_outputs(), logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("crop_fraction", "resize_px"), [(1.0, 32), (0.875, 37), (0.8, 40)])
def test_plain_view_is_resized_so_that_the_crop_has_its_share(
    crop_fraction, resize_px, train_params
):
    preprocess = preprocess_of(train_params(image_px=32, crop_fraction=crop_fraction))
    assert (preprocess.resize_px, preprocess.crop_px) == (resize_px, 32)


def test_view_of_the_params_is_the_preprocessing_s(train_params):
    view = {"grey": True, "side_px": 24, "border_mask": 0.1}
    assert preprocess_of(train_params(view=view)) == Preprocess(37, 32, View(**view))
    assert preprocess_of(train_params()) == Preprocess(37, 32)


def test_params_that_use_no_view_are_those_that_spell_it_out(train_params):
    off = {"grey": False, "side_px": None, "border_mask": 0}
    assert train_params(view=off) == train_params()
    document = train_params().model_dump(mode="json")
    # DVC looks for it in params.yaml; a block that `fieldlens new` dumps must have it.
    assert document["view"] == off
    assert "background" not in document["augment"]


@pytest.mark.parametrize(
    "view", [{"gray": True}, {"grey": 1}, {"side_px": 8}, {"side_px": "96"}, {"border_mask": 0.5}]
)
def test_views_that_cannot_be_are_refused(view, train_params):
    with pytest.raises(ValidationError, match="view"):
        train_params(view=view)


def test_labels_become_numbers_in_the_order_of_the_logits(data, train_params):
    entries, labels = in_split(data.entries, "train"), LABELS[::-1]
    split = open_split(entries, labels, train_params(), 1, data.files)
    assert [labels[i] for i in split.truth] == [entry.label for entry in entries]


def test_kept_trunk_is_used_only_for_the_same_weights_side_and_exporter(
    data, job_of, tmp_path, monkeypatch
):
    paths, job = Paths(tmp_path), job_of(strategy="cached")
    params, pictures = job.params, data.split("train", job).pictures
    # What is asked is when a trunk is exported, not what: the exporter has tests of its own.
    monkeypatch.setattr(onnx_export, "trunk_onnx", lambda *_: b"a trunk")

    def n_kept(seed: int = 1, **changed: object) -> int:
        chosen = params.model_copy(update=changed)
        model, _ = start_model(chosen, 3, seed, paths)
        frozen_trunks(model, chosen, pictures, seed, paths)
        return len(list(paths.trunks_dir.iterdir()))

    assert [n_kept(), n_kept()] == [1, 1]
    assert n_kept(seed=2) == 2
    assert n_kept(image_px=64) == 3
    other = tmp_path / "export.py"
    other.write_text("# another exporter", encoding="utf-8")
    monkeypatch.setattr(onnx_export, "__file__", str(other))
    assert n_kept() == 4

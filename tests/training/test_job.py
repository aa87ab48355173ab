"""A training as a function: what it gives, what it writes, and how it is watched and ended."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.atomic import file_sha256
from pipelines.config.params import load_params
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import in_split
from pipelines.errors import ConfigError, DataError, StorageError
from pipelines.paths import Paths
from pipelines.training import fit
from pipelines.training.float_model import load_float_model
from pipelines.training.job import Data, Job, Observer, train
from pipelines.training.runtime import Runtime
from tests.file_tree import file_tree

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


def same(a, b) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


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

from __future__ import annotations

import pytest

from pipelines.errors import BundleError
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.tracking import champions, runs

TASK = "tiny"


def _register(project: Paths) -> str:
    files = project.task(TASK)
    files.bundle.write_bytes(files.candidate.read_bytes())
    bundle = read_bundle(files.bundle)
    runs.Tracker(project).new_run(TASK, "train tiny", {"fieldlens.weights_sha256": "w"})
    version = runs.release(
        project,
        TASK,
        weights_sha256="w",
        onnx_path=files.mobile_dir / bundle.files[bundle.served.precision].name,
        bundle_path=files.bundle,
        tags={},
        description="words",
    )
    assert version is not None
    return version


@pytest.mark.slow
def test_champion_comes_back_as_it_was_registered(tracked_project, tmp_path):
    version = _register(tracked_project)
    into = Paths(tmp_path / "registry")
    assert champions.bring(tracked_project, TASK, into) == version
    assert into.task(TASK).bundle.read_bytes() == tracked_project.task(TASK).bundle.read_bytes()
    assert Predictor.load(into.task(TASK).bundle).bundle.task == TASK


@pytest.mark.slow
def test_task_without_a_champion_is_one_clear_error(tracked_project, tmp_path):
    with pytest.raises(BundleError, match="there is no released model"):
        champions.bring(tracked_project, TASK, Paths(tmp_path / "registry"))


def test_file_that_its_bundle_does_not_name_is_refused(tiny_project, tmp_path):
    files = tiny_project.task(TASK)
    folder = tmp_path / "download"
    folder.mkdir()
    (folder / "bundle.json").write_bytes(files.candidate.read_bytes())
    (folder / "model.onnx").write_bytes(b"another file")
    into = Paths(tmp_path / "registry").task(TASK)
    with pytest.raises(BundleError, match="no file in it is the one"):
        champions._install(folder, TASK, into)
    assert not into.bundle.exists()


def test_model_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle\.json"):
        champions._install(tmp_path, TASK, Paths(tmp_path).task(TASK))

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.config.evaluate import EvaluateParams
from pipelines.config.gate import GateParams
from pipelines.errors import GateError
from pipelines.paths import Paths
from pipelines.stages import evaluate, gate
from pipelines.tracking import runs
from tests.file_tree import results
from tests.mlflow_server import closed_port, mlflow_server

WEIGHTS = "bb" * 32  # As in the bundle of the fixture.
PNG = b"\x89PNG not really"
EVALUATION = EvaluateParams(calibration_bins=10, resamples=200)
EASY = GateParams(
    min_accuracy=0.5,
    min_macro_f1=0.5,
    min_agreement=0.5,
    max_accuracy_drop=0.5,
    max_recall_drop=0.5,
    max_int8_bytes=10_000,
)


def start(paths: Paths, key: str = "k1"):
    return runs.start(paths, "tiny", "reference", name="mobilenet_v2-cached", training_key=key)


def tags_of(paths: Paths, weights_sha256: str = WEIGHTS) -> dict[str, str]:
    return runs.training_tags(
        paths,
        "tiny",
        "reference",
        weights_sha256=weights_sha256,
        data_sha256="d",
        params_sha256="p",
        data_source="sample",
    )


def client_of(paths: Paths):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{paths.mlflow_db}")


def runs_of(paths: Paths) -> list:
    client = client_of(paths)
    experiments = [found.experiment_id for found in client.search_experiments()]
    return client.search_runs(experiments)


def history_of(paths: Paths, run_id: str, name: str) -> list[tuple[int, float]]:
    """Steps and values of a metric."""
    return [(e.step, e.value) for e in client_of(paths).get_metric_history(run_id, name)]


def train(paths: Paths) -> None:
    with start(paths) as run:
        run.params({"backbone": "mobilenet_v2", "head": {"hidden": [], "dropout": 0.2}})
        run.epoch(1, {"val_loss": 0.9, "val_accuracy": 0.5, "phase": "head"})
        run.epoch(2, {"val_loss": 0.7, "val_accuracy": 0.75, "phase": "tail"})
        run.figure("curves.png", PNG)
        run.tags(tags_of(paths))


def tell(paths: Paths, run: runs.Run, accuracy: float, description: str = "words") -> None:
    bundle_dir = paths.task("tiny").mobile_dir
    runs.log_test(run, {"accuracy": accuracy}, {}, bundle_dir, description)


def test_training_is_one_run_with_all_that_was_said(tracked_project):
    train(tracked_project)
    (run,) = runs_of(tracked_project)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mobilenet_v2-cached-bbbbbbbb"
    assert run.data.params == {
        "backbone": "mobilenet_v2",
        "head.hidden": "[]",
        "head.dropout": "0.2",
    }
    assert run.data.metrics == {"val_loss": 0.7, "val_accuracy": 0.75}
    expected = {
        "task": "tiny",
        "domain": "reference",
        "fieldlens.weights_sha256": WEIGHTS,
        "fieldlens.data_sha256": "d",
        "fieldlens.params_sha256": "p",
        "fieldlens.data_source": "sample",
        "fieldlens.git_rev": "unknown",
    }
    assert expected.items() <= run.data.tags.items()
    assert history_of(tracked_project, run.info.run_id, "val_loss") == [(1, 0.9), (2, 0.7)]
    experiment = client_of(tracked_project).get_experiment_by_name("tiny")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    figure = tracked_project.mlflow_artifacts_dir / "tiny" / run.info.run_id / "artifacts/figures"
    assert (figure / "curves.png").read_bytes() == PNG


def test_more_than_one_batch_and_long_values(tracked_project):
    with start(tracked_project) as run:
        run.params({f"p{number}": "x" * 2000 for number in range(130)})
        run.epoch(1, {f"m{number}": number for number in range(130)})
    (run,) = runs_of(tracked_project)
    assert len(run.data.params) == 130
    assert run.data.params["p0"] == "x" * 500
    assert run.data.metrics["m129"] == 129


@pytest.mark.parametrize(
    ("ends_with", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_training_that_stops_is_taken_up_again(tracked_project, ends_with, status):
    def stop_in_the_middle() -> None:
        with start(tracked_project) as run:
            run.epoch(1, {"val_loss": 1.0})
            raise ends_with

    with pytest.raises(ends_with):
        stop_in_the_middle()
    (stopped,) = runs_of(tracked_project)
    assert stopped.info.status == status
    with start(tracked_project, key="another") as other:
        assert other.run_id != stopped.info.run_id
    with start(tracked_project) as again:
        assert again.run_id == stopped.info.run_id
        assert client_of(tracked_project).get_run(again.run_id).info.status == "RUNNING"
        again.epoch(2, {"val_loss": 0.5})
    assert client_of(tracked_project).get_run(again.run_id).info.status == "FINISHED"
    # A training that has finished is not gone on with: the same key makes a run of its own.
    with start(tracked_project) as fresh:
        assert fresh.run_id != again.run_id


def test_process_killed_in_the_middle_leaves_a_run_to_go_on_with(tracked_project):
    code = (
        "import sys, time; from pathlib import Path; from pipelines.paths import Paths;"
        "from pipelines.tracking import runs;"
        "start = runs.start(Paths(Path(sys.argv[1])), 'tiny', 'reference', name='n',"
        " training_key='k1');"
        "run = start.__enter__(); run.epoch(1, {'val_loss': 1.0});"
        "print(run.run_id, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tracked_project.root)], stdout=subprocess.PIPE, text=True
    )
    with process:
        run_id = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
    (killed,) = runs_of(tracked_project)
    assert (killed.info.run_id, killed.info.status) == (run_id, "RUNNING")
    with start(tracked_project) as run:
        assert run.run_id == run_id
    assert [found.info.status for found in runs_of(tracked_project)] == ["FINISHED"]


def test_server_down_costs_one_line_and_little_time(tiny_project, monkeypatch, caplog):
    monkeypatch.delenv("FIELDLENS_TRACKING")
    uri = f"http://user:secret@127.0.0.1:{closed_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    started = time.monotonic()
    with caplog.at_level(logging.INFO):
        train(tiny_project)
    assert time.monotonic() - started < 20
    assert runs.find_run(tiny_project, "tiny", WEIGHTS) is None
    lines = [r.getMessage() for r in caplog.records if r.name.startswith("pipelines")]
    # One for the training, and one for the question after it.
    assert len(lines) == 2
    assert "going on untracked" in lines[0]
    assert "\n" not in lines[0]
    assert "127.0.0.1" in lines[0]
    assert "secret" not in "".join(record.getMessage() for record in caplog.records)
    assert not tiny_project.mlflow_db.exists()


@pytest.mark.parametrize("spoil", [b"this is no database", None])
def test_spoilt_store_does_not_stop_a_training(tracked_project, spoil, caplog):
    tracked_project.mlflow_db.unlink()
    if spoil is None:
        tracked_project.mlflow_db.mkdir()
    else:
        tracked_project.mlflow_db.write_bytes(spoil)
    train(tracked_project)
    assert sum("going on untracked" in record.getMessage() for record in caplog.records) == 1


def test_store_that_fails_later_does_not_stop_a_training(tracked_project, caplog):
    with start(tracked_project) as run:
        run.epoch(1, {"val_loss": 1.0})
        # A file where the artifacts' folder should be.
        tracked_project.mlflow_artifacts_dir.write_text("in the way")
        run.figure("a.png", PNG)
        run.epoch(2, {"val_loss": 0.5})
    assert sum("going on untracked" in record.getMessage() for record in caplog.records) == 1
    (left,) = runs_of(tracked_project)
    assert left.info.status == "RUNNING"
    assert left.data.metrics == {"val_loss": 1.0}


def test_off_touches_nothing_and_loads_no_mlflow(tiny_project):
    code = (
        "import sys; from pathlib import Path; from pipelines.paths import Paths;"
        "from pipelines.tracking import runs; paths = Paths(Path(sys.argv[1]));\n"
        "with runs.start(paths, 't', 'd', name='n', training_key='k') as run:\n"
        "    run.params({'a': 1}); run.epoch(1, {'b': 2.0}); run.figure('c.png', b'd')\n"
        "    run.artifact(paths.root); run.tags({'fieldlens.weights_sha256': 'e'})\n"
        "assert run.run_id is None\n"
        "assert runs.find_run(paths, 't', 'e') is None\n"
        "assert 'mlflow' not in sys.modules"
    )
    before = sorted(tiny_project.root.rglob("*"))
    command = [sys.executable, "-c", code, str(tiny_project.root)]
    subprocess.run(command, check=True, timeout=60)
    assert sorted(tiny_project.root.rglob("*")) == before


def test_results_are_the_same_bytes_with_tracking_and_without(tracked_project, tested_project):
    # tested_project was evaluated with tracking off.
    evaluate.run("tiny", EVALUATION, 42, tracked_project)
    assert results(tracked_project) == results(tested_project)


def test_evaluate_adds_to_the_run_of_the_training(tracked_project):
    train(tracked_project)
    evaluate.run("tiny", EVALUATION, 42, tracked_project)
    (run,) = runs_of(tracked_project)
    assert run.data.metrics["test.int8.accuracy"] == 0.777778
    assert run.data.metrics["test.agreement"] == pytest.approx(0.888889)
    assert 0.5 < run.data.metrics["test.int8.accuracy_low"] < 0.777778
    assert 0.777778 < run.data.metrics["test.int8.accuracy_high"] < 1
    assert run.data.metrics["test.accuracy_drop_low"] <= run.data.metrics["test.accuracy_drop"]
    assert "test.int8.recall.green_tile_high" in run.data.metrics
    assert run.data.metrics["test.int8.per_class.green_tile.recall"] == 1.0
    folder = tracked_project.mlflow_artifacts_dir / "tiny" / run.info.run_id / "artifacts"
    assert (folder / "figures/test_confusion.png").is_file()
    files = tracked_project.task("tiny")
    assert (folder / "mobile/bundle.json").read_bytes() == files.bundle.read_bytes()
    described = run.data.tags["mlflow.note.content"]
    low, high = (run.data.metrics[f"test.int8.accuracy_{end}"] for end in ("low", "high"))
    assert f"| Accuracy | 0.778 ({low:.3f} to {high:.3f}) |" in described
    assert "| Blind macro-F1 |" in described


def test_description_follows_the_figures_until_a_person_writes_another(tracked_project):
    def described() -> str:
        return runs_of(tracked_project)[0].data.tags["mlflow.note.content"]

    train(tracked_project)
    for accuracy, words in ((0.5, "half"), (0.75, "three quarters")):
        tell(tracked_project, runs.find_run(tracked_project, "tiny", WEIGHTS), accuracy, words)
        assert described() == words
    run = runs.find_run(tracked_project, "tiny", WEIGHTS)
    client_of(tracked_project).set_tag(run.run_id, "mlflow.note.content", "Shown to the clinic.")
    tell(tracked_project, run, 0.8, "four fifths")
    assert described() == "Shown to the clinic."


def test_evaluate_writes_the_run_where_dvc_skipped_the_training(tracked_project):
    files = tracked_project.task("tiny")
    files.reports_dir.mkdir(parents=True, exist_ok=True)
    files.history.write_text("epoch,phase,train_loss,val_loss\n1,head,2.5,\n2,tail,1.5,1.25\n")
    files.training_figures_dir.mkdir()
    (files.training_figures_dir / "curves.png").write_bytes(PNG)
    files.float_dir.mkdir(parents=True)
    files.float_meta.write_text('{"strategy": "cached", "params": {"batch_size": 32}}')
    for _ in range(2):  # The second finds the run of the first.
        evaluate.run("tiny", EVALUATION, 42, tracked_project)
    (run,) = runs_of(tracked_project)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "mobilenet_v2-cached-bbbbbbbb"
    assert run.data.params == {"strategy": "cached", "params.batch_size": "32"}
    assert run.data.tags["fieldlens.recorded_from"] == "history.csv"
    assert history_of(tracked_project, run.info.run_id, "train_loss") == [(1, 2.5), (2, 1.5)]
    assert history_of(tracked_project, run.info.run_id, "val_loss") == [(2, 1.25)]
    folder = tracked_project.mlflow_artifacts_dir / "tiny" / run.info.run_id / "artifacts"
    assert (folder / "figures/training/curves.png").read_bytes() == PNG


def test_gate_releases_once_a_bundle_and_only_what_passes(tracked_project):
    train(tracked_project)
    evaluate.run("tiny", EVALUATION, 42, tracked_project)
    client = client_of(tracked_project)
    with pytest.raises(GateError):
        gate.run("tiny", EASY.model_copy(update={"min_accuracy": 0.99}), tracked_project)
    assert client.search_registered_models() == []

    for _ in range(2):
        gate.run("tiny", EASY, tracked_project)
    (version,) = client.search_model_versions("name = 'tiny'")
    champion = client.get_model_version_by_alias("tiny", "champion")
    assert champion.version == version.version
    assert runs.champion_version(runs.Tracker(tracked_project), "tiny") == "1"
    assert version.tags["served"] == "int8"
    assert version.tags["data_source"] == "sample"
    (run,) = runs_of(tracked_project)
    assert version.run_id == run.info.run_id
    described = run.data.tags["mlflow.note.content"]
    # A version without a description gets one; a person's own is left alone.
    for there, expected in ((version.description, described), ("", described), ("Ours", "Ours")):
        client.update_model_version("tiny", "1", there)
        gate.run("tiny", EASY, tracked_project)
        assert client.get_model_version("tiny", "1").description == expected

    # Another bundle is another version, and takes the alias over.
    another = EVALUATION.model_copy(update={"calibration_bins": 3})
    evaluate.run("tiny", another, 42, tracked_project)
    gate.run("tiny", EASY, tracked_project)
    assert len(client.search_model_versions("name = 'tiny'")) == 2
    assert client.get_model_version_by_alias("tiny", "champion").version == 2


def test_a_release_without_a_run_is_made_in_the_projects_store(
    tracked_project, tmp_path, monkeypatch
):
    # MLflow's own default, `mlruns` or `mlflow.db` of the working folder, is another store.
    monkeypatch.chdir(tmp_path)
    files = tracked_project.task("tiny")
    files.bundle.write_bytes(files.candidate.read_bytes())
    version = runs.release(
        tracked_project,
        "tiny",
        weights_sha256="of no run",
        onnx_path=files.onnx_int8,
        bundle_path=files.bundle,
        tags={},
        description="words",
    )
    assert version == "1"
    champion = client_of(tracked_project).get_model_version_by_alias("tiny", "champion")
    assert not champion.run_id
    kept = Path(champion.source.removeprefix("file://")) / "extra_files/bundle.json"
    assert kept.read_bytes() == files.bundle.read_bytes()


def test_released_model_answers_through_mlflow(tracked_project):
    import mlflow
    import numpy as np

    from pipelines.serving.predictor import Predictor

    train(tracked_project)
    evaluate.run("tiny", EVALUATION, 42, tracked_project)
    gate.run("tiny", EASY, tracked_project)
    client = client_of(tracked_project)
    version = client.get_model_version_by_alias("tiny", "champion")
    folder = Path(version.source.removeprefix("file://"))
    loaded = mlflow.pyfunc.load_model(str(folder))
    files = tracked_project.task("tiny")
    predictor = Predictor.load(files.bundle, "int8")
    pixels = predictor.pixels(files.raw_dir / "red_tile/test_00.png")[np.newaxis]
    assert (loaded.predict(pixels)["logits"] == predictor.run(pixels)[0]).all()
    kept = folder / "extra_files/bundle.json"
    assert kept.read_bytes() == files.bundle.read_bytes()


def test_git_revision_of_a_checkout(tmp_path):
    assert runs.git_revision(tmp_path) == "unknown"
    assert runs.git_revision(tmp_path / "absent") == "unknown"
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "m"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, env=os.environ)
    assert len(runs.git_revision(tmp_path)) == 40
    (tmp_path / "file").write_text("x")
    subprocess.run(["git", "add", "file"], cwd=tmp_path, check=True)
    assert runs.git_revision(tmp_path).endswith("-dirty")


@pytest.mark.slow
def test_real_server_over_http(tracked_project, monkeypatch, tmp_path):
    with mlflow_server(tracked_project.mlflow_db, tmp_path) as (_, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        train(tracked_project)
        evaluate.run("tiny", EVALUATION, 42, tracked_project)
        gate.run("tiny", EASY, tracked_project)
        tracker = runs.Tracker(tracked_project)
        assert runs.champion_version(tracker, "tiny") == "1"
    (run,) = runs_of(tracked_project)
    assert run.info.status == "FINISHED"
    assert list((tmp_path / "kept").rglob("curves.png"))
    assert not tracked_project.mlflow_artifacts_dir.exists()


def test_epoch_that_is_said_again_after_a_kill_stands_once(tracked_project):
    def killed_before_the_second_checkpoint() -> None:
        with start(tracked_project) as run:
            run.epoch(1, {"val_loss": 1.0, "note": "text"})
            run.epoch(2, {"val_loss": 0.5})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed_before_the_second_checkpoint()
    with start(tracked_project) as again:
        again.epoch(2, {"val_loss": 0.5})
        again.epoch(3, {"val_loss": 0.25, "val_accuracy": 1.0})
    losses = history_of(tracked_project, again.run_id, "val_loss")
    assert losses == [(1, 1.0), (2, 0.5), (3, 0.25)]
    (run,) = runs_of(tracked_project)
    assert run.data.metrics == {"val_loss": 0.25, "val_accuracy": 1.0}


def test_clock_put_back_hides_no_later_value(tracked_project, monkeypatch):
    train(tracked_project)
    run = runs.find_run(tracked_project, "tiny", WEIGHTS)
    tell(tracked_project, run, 0.5)
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    run = runs.find_run(tracked_project, "tiny", WEIGHTS)
    tell(tracked_project, run, 0.75)
    (found,) = runs_of(tracked_project)
    assert found.data.metrics["test.accuracy"] == 0.75
    assert found.info.status == "FINISHED"


def test_test_that_is_told_twice_stands_once_and_the_training_keeps_its_end(tracked_project):
    train(tracked_project)
    (before,) = runs_of(tracked_project)
    for _ in range(2):
        run = runs.find_run(tracked_project, "tiny", WEIGHTS)
        tell(tracked_project, run, 0.5)
    (after,) = runs_of(tracked_project)
    assert history_of(tracked_project, run.run_id, "test.accuracy") == [(0, 0.5)]
    assert (after.info.status, after.info.end_time) == ("FINISHED", before.info.end_time)


def test_what_is_killed_in_the_middle_never_looks_whole(tracked_project, monkeypatch):
    """Each addition to a run in turn is the last one that arrives."""

    class Killed(BaseException):
        pass

    files = tracked_project.task("tiny")
    files.reports_dir.mkdir(parents=True, exist_ok=True)
    files.history.write_text("epoch,phase,train_loss\n1,head,2.5\n2,tail,1.5\n")
    call = runs.Tracker.call
    left = 0

    def until_killed(self, action):
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        return call(self, action)

    def record() -> None:
        run = runs.find_or_record(
            tracked_project,
            "tiny",
            WEIGHTS,
            name="n",
            params={"a": 1},
            tags=tags_of(tracked_project),
        )
        runs.log_test(run, {"accuracy": 0.5}, {"a.png": PNG}, files.mobile_dir, "words")

    monkeypatch.setattr(runs.Tracker, "call", until_killed)
    n_killed = 0
    for n_calls in range(100):
        left = n_calls
        try:
            record()
        except Killed:
            n_killed += 1
            for found in runs_of(tracked_project):
                whole = {"train_loss", "test.accuracy"} <= found.data.metrics.keys()
                assert found.info.status == "RUNNING" or whole or not_yet_tested(found)
            continue
        break
    assert n_killed >= 8
    (run,) = runs_of(tracked_project)
    assert run.info.status == "FINISHED"
    assert history_of(tracked_project, run.info.run_id, "train_loss") == [(1, 2.5), (2, 1.5)]
    assert history_of(tracked_project, run.info.run_id, "test.accuracy") == [(0, 0.5)]


def not_yet_tested(run) -> bool:
    """A whole training, of which `evaluate` has not told anything."""
    return "train_loss" in run.data.metrics and not any(
        name.startswith("test.") for name in run.data.metrics
    )

"""Full and forbidden disks, stores that are locked or vanish, clocks that are put back.

Each costs one clear line, and nothing that was there before. Others stand with what they break:
a full disk in tests/stages/test_fetch.py and tests/training/test_checkpoints.py, a spoilt store in
tests/tracking/test_runs.py.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines import atomic
from pipelines.tracking import runs
from tests.file_tree import results
from tests.mlflow_server import mlflow_server

ROOT = Path(__file__).resolve().parents[2]

#: `evaluate` of the tiny project, the way that the command line runs it.
_EVALUATE = """
import os, resource, shutil, signal, sys, tempfile, time
from pathlib import Path
from pipelines.config.evaluate import EvaluateParams
from pipelines import cli
from pipelines.commands import stage
from pipelines.commands.answer import Answer
from pipelines.paths import Paths
from pipelines.stages import evaluate
root, fault = Path(sys.argv[1]), sys.argv[2]
PARAMS = EvaluateParams(calibration_bins=10, resamples=200)
cli.go_quiet()
cli._log_to_stderr(verbose=False)
def work(arguments, paths):
    evaluate.run("tiny", PARAMS, 42, Paths(root))
    return Answer()
stage.main = work
if fault == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
if fault == "forbidden":
    # Loads all that is imported late: nobody may not read a Python that lies in root's home.
    with tempfile.TemporaryDirectory() as warm:
        copy = Path(shutil.copytree(root, Path(warm) / "copy"))
        evaluate.run("tiny", PARAMS, 42, Paths(copy))
    os.chdir(root)
    root = Path(".")
    os.setgid(65534)
    os.setuid(65534)
if fault == "clock":
    true, began = time.time, time.time()
    time.time = lambda: began - 3600 * (1 + true() - began)
sys.exit(cli.main(["evaluate", "tiny"]))
"""


def run_evaluate(root: Path, fault: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _EVALUATE, str(root), fault],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith("fieldlens:")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_full_disk_is_one_line_and_the_old_results_stay(tested_project):
    before = results(tested_project)
    done = run_evaluate(tested_project.root, "full")
    assert done.returncode == 2
    assert "cannot be written (File too large)" in complaint(done)
    assert results(tested_project) == before
    assert run_evaluate(tested_project.root, "none").returncode == 0
    assert results(tested_project) == before


def test_forbidden_folder_is_one_line_and_the_old_results_stay(tested_project, tmp_path):
    if os.getuid() != 0:
        pytest.skip("needs root, to drop the rights to a folder")
    for folder in (tmp_path, *tested_project.root.rglob("*")):
        folder.chmod(0o755 if folder.is_dir() else 0o644)
    tested_project.root.chmod(0o755)
    before = results(tested_project)
    done = run_evaluate(tested_project.root, "forbidden")
    assert done.returncode == 2
    assert "Permission denied" in complaint(done)
    assert results(tested_project) == before


def test_clock_put_back_changes_no_result(tested_project, mlflow_template):
    before = results(tested_project)
    shutil.copyfile(mlflow_template, tested_project.mlflow_db)
    done = run_evaluate(tested_project.root, "clock", FIELDLENS_TRACKING="on")
    assert done.returncode == 0, done.stderr
    assert "going on untracked" not in done.stderr
    assert results(tested_project) == before


def only_line(caplog: pytest.LogCaptureFixture) -> str:
    """The one line that a lost store costs."""
    said = [record.getMessage() for record in caplog.records if record.name.startswith("pipelines")]
    assert len(said) == 1, said
    assert "going on untracked" in said[0]
    return said[0]


@pytest.mark.parametrize("is_from_the_start", [True, False])
def test_locked_store_is_one_line(tracked_project, caplog, is_from_the_start):
    arguments = (tracked_project, "tiny", "reference")
    store = sqlite3.connect(tracked_project.mlflow_db, isolation_level=None)
    if is_from_the_start:
        store.execute("BEGIN EXCLUSIVE")
    with (
        caplog.at_level(logging.INFO),
        runs.start(*arguments, name="n", training_key="k") as run,
    ):
        if not is_from_the_start:
            store.execute("BEGIN EXCLUSIVE")
        run.epoch(1, {"val_loss": 1.0})
        run.epoch(2, {"val_loss": 0.5})
    store.close()
    assert "locked" in only_line(caplog)
    # The training goes on; its run, if there is one, does not look whole.
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tracked_project.mlflow_db}")
    found = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert all(each.info.status == "RUNNING" for each in found)


@pytest.mark.slow
def test_server_that_vanishes_in_the_middle_is_one_line(
    tracked_project, monkeypatch, tmp_path, caplog
):
    with mlflow_server(tracked_project.mlflow_db, tmp_path) as (server, uri):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with (
            caplog.at_level(logging.INFO),
            runs.start(tracked_project, "tiny", "reference", name="n", training_key="k") as run,
        ):
            run.epoch(1, {"val_loss": 1.0})
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            start = time.monotonic()
            run.epoch(2, {"val_loss": 0.5})
            run.epoch(3, {"val_loss": 0.25})
            assert time.monotonic() - start < 60
    only_line(caplog)
    # Taken up again where the store is back: the epochs stand once.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with runs.start(tracked_project, "tiny", "reference", name="n", training_key="k") as again:
        for step, value in ((1, 1.0), (2, 0.5), (3, 0.25)):
            again.epoch(step, {"val_loss": value})
    from mlflow import MlflowClient

    history = MlflowClient(
        tracking_uri=f"sqlite:///{tracked_project.mlflow_db}"
    ).get_metric_history(again.run_id, "val_loss")
    assert [(entry.step, entry.value) for entry in history] == [(1, 1.0), (2, 0.5), (3, 0.25)]


def test_store_whose_making_was_killed_is_made_anew(tiny_project, monkeypatch):
    """MLflow makes its tables one by one; half of them would be of no use to anybody."""
    from pipelines.tracking.mlflow_store import make_store

    leftover = tiny_project.mlflow_db.with_name(f".tmp-{tiny_project.mlflow_db.name}")
    with sqlite3.connect(leftover) as half:
        half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    half.close()
    make_store(tiny_project.mlflow_db)
    assert not leftover.exists()
    monkeypatch.delenv("FIELDLENS_TRACKING")
    with runs.start(tiny_project, "tiny", "reference", name="n", training_key="k") as run:
        run.epoch(1, {"val_loss": 1.0})
    assert runs.Tracker(tiny_project).newest_run("tiny", "task", "tiny") is not None


# -- writing --------------------------------------------------------------------------------------
def test_what_a_killed_writer_left_goes_with_the_next_writing(tmp_path):
    (tmp_path / ".tmp-a.txt").write_text("half of a longer tex")
    atomic.write_text(tmp_path / "a.txt", "whole")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "whole"}


def test_writers_of_one_file_do_not_mix(tmp_path):
    texts = [str(number) * 200_000 for number in range(8)]
    threads = [
        threading.Thread(target=atomic.write_text, args=(tmp_path / "a.txt", text))
        for text in texts * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_folder_whose_replacing_was_killed_between_two_renames_is_not_lost(tmp_path):
    retired = tmp_path / ".tmp-old-raw"
    retired.mkdir()
    (retired / "a.jpg").write_text("old")

    def stop() -> None:
        with atomic.new_folder(tmp_path / "raw"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert (tmp_path / "raw" / "a.jpg").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("task", "n_kills"),
    [
        ("cats_dogs", 6),
        ("hard_hat", 8),
        pytest.param("cats_dogs", 42, marks=pytest.mark.by_hand(reason="half an hour")),
        pytest.param("polyp", 8, marks=pytest.mark.by_hand(reason="as hard_hat's, a minute")),
        pytest.param("flowers", 8, marks=pytest.mark.by_hand(reason="as hard_hat's, a minute")),
    ],
)
def test_kills_leave_nothing_behind(task, n_kills):
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("kill_run.py"), str(n_kills), "3", task],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=3500,
    )
    assert done.returncode == 0, done.stderr[-1000:]
    assert done.stdout == f"{n_kills} kills, 0 faults\n"

"""The script of docs/howto/shared_server.md, run for real: PostgreSQL, an S3 stand-in, MLflow."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipelines.config.evaluate import EvaluateParams
from pipelines.config.gate import GateParams
from pipelines.config.train import TrainParams
from pipelines.paths import Paths
from pipelines.stages import evaluate, gate, train
from pipelines.tracking import champions
from pipelines.training import fit
from tests.file_tree import file_tree, results
from tests.loopback import closed_port
from tests.processes import ROOT, dvc, ran
from tests.tiny_params import PARAMS, PHASE

pytest.importorskip("dvc_s3", reason="the extra shared is not installed")
pytest.importorskip("psycopg2", reason="the extra shared is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")),
        reason="PostgreSQL is not installed: apt-get install postgresql",
    ),
]

SCRIPT = ROOT / "docs/howto/shared_server.sh"
_SHORT = {**PHASE, "epochs": 2, "warmup_fraction": 0.0}
TRAINING = TrainParams.model_validate(
    {**PARAMS, "strategy": "full", "views": 1, "head_phase": _SHORT, "tail_phase": _SHORT}
)
EASY = GateParams(
    min_accuracy=0.5,
    min_macro_f1=0.5,
    min_agreement=0.5,
    max_accuracy_drop=0.5,
    max_recall_drop=0.5,
    max_int8_bytes=10_000,
)


@dataclass(frozen=True)
class Server:
    """What the script has started below a folder, or has not."""

    folder: Path
    environ: dict[str, str]

    def does(self, verb: str, *more: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        return ran("bash", SCRIPT, verb, self.folder, *more, environ=self.environ, code=code)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.environ['MLFLOW_PORT']}"

    def keys(self, bucket: str) -> list[str]:
        """Of what a bucket holds."""
        client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.environ['S3_PORT']}",
            region_name="us-east-1",
            aws_access_key_id="anybody",
            aws_secret_access_key="anything",
        )
        return [each["Key"] for each in client.list_objects_v2(Bucket=bucket).get("Contents", [])]

    def processes(self) -> dict[str, int]:
        """Of each service the process that leads its group."""
        found = {each: self.folder / f"{each}.pid" for each in ("mlflow", "s3")}
        found["postgres"] = self.folder / "postgres/data/postmaster.pid"
        return {name: int(path.read_text().split()[0]) for name, path in found.items()}


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not below pytest's own folder, which nobody else may enter: PostgreSQL runs as another user.
    with tempfile.TemporaryDirectory(prefix="fieldlens-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ports = {f"{each}_PORT": str(closed_port()) for each in ("MLFLOW", "S3", "POSTGRES")}
        server = Server(folder, {**os.environ, **ports, "PYTHON": sys.executable})
        try:
            server.does("start")
            yield server
        finally:
            server.does("stop")


@pytest.fixture
def project(tiny_project: Paths, server: Server, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """The tiny project, whose tracking is on and goes to the server."""
    server.does("start")
    monkeypatch.delenv("FIELDLENS_TRACKING")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    summary = {"labels": ["red_tile", "green_tile", "blue_tile"], "data_source": "sample"}
    tiny_project.task("tiny").prepare_summary.write_text(json.dumps(summary))
    return tiny_project


def trained(paths: Paths) -> None:
    train.run("tiny", "reference", TRAINING, 7, paths)


def runs_at(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny")
    return client.search_runs([experiment.experiment_id])


def test_a_training_is_logged_its_model_registered_and_brought_back(project, server, tmp_path):
    trained(project)
    files = project.task("tiny")
    # The tiny project's ONNX files are of other weights: told of as a run of their own.
    evaluate.run("tiny", EvaluateParams(calibration_bins=10, resamples=200), 42, project)
    gate.run("tiny", EASY, project)
    made, training = runs_at(server.uri)
    assert {made.info.status, training.info.status} == {"FINISHED"}
    assert training.data.metrics["epoch"] == 4
    assert training.data.params["backbone"] == "mobilenet_v3_small"
    keys = server.keys("fieldlens-mlflow")
    assert any(training.info.run_id in key and key.endswith("curves.png") for key in keys)
    assert any(made.info.run_id in key and key.endswith("bundle.json") for key in keys)
    assert not project.mlflow_db.exists()
    assert not project.mlflow_artifacts_dir.exists()

    elsewhere = Paths(tmp_path / "elsewhere")
    assert champions.bring(project, "tiny", elsewhere) == "1"
    theirs = elsewhere.task("tiny")
    assert theirs.bundle.read_bytes() == files.bundle.read_bytes()
    assert theirs.onnx_int8.read_bytes() == files.onnx_int8.read_bytes()


def test_a_fresh_clone_pulls_what_was_pushed(project, server, tmp_path):
    root = project.root
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    ran("git", "init", "-q", cwd=root)
    dvc(root, "init", "-q")
    server.does("remote", root)
    dvc(root, "add", "-q", "datasets/tiny/raw", "models/tiny/mobile")
    dvc(root, "push", "-q")
    ran("git", "add", ".", cwd=root)
    ran("git", *author, "commit", "-q", "-m", "tiles and a model", cwd=root)
    assert "secret" not in ran("git", "show", "HEAD:.dvc/config", cwd=root).stdout
    assert all(key.startswith("files/md5/") for key in server.keys("fieldlens-dvc"))

    clone = tmp_path / "clone"
    ran("git", "clone", "-q", root, clone)
    # Who the clone is, is its own; where the remote is, it has from Git.
    for option in ("access_key_id", "secret_access_key"):
        dvc(clone, "remote", "modify", "--local", "shared", option, "fieldlens")
    dvc(clone, "pull", "-q")
    folders = "datasets/tiny/raw", "models/tiny/mobile"
    pulled = file_tree(clone, *(clone / each for each in folders))
    assert pulled == file_tree(root, *(root / each for each in folders))
    assert len(pulled) > 50


def kill_mlflow(server: Server) -> None:
    os.killpg(server.processes()["mlflow"], signal.SIGKILL)


def stop_mlflow(server: Server) -> None:
    """It neither answers nor closes a connection."""
    os.killpg(server.processes()["mlflow"], signal.SIGSTOP)


def kill_postgres(server: Server) -> None:
    os.kill(server.processes()["postgres"], signal.SIGQUIT)


def kill_s3(server: Server) -> None:
    os.killpg(server.processes()["s3"], signal.SIGKILL)


@pytest.mark.parametrize("loss", [kill_mlflow, stop_mlflow, kill_postgres, kill_s3])
def test_what_dies_in_the_middle_costs_the_tracking_and_nothing_else(
    loss: Callable[[Server], None], project, server, tmp_path, monkeypatch, caplog
):
    untracked = Paths(Path(shutil.copytree(project.root, tmp_path / "untracked")))
    with monkeypatch.context() as off:
        off.setenv("FIELDLENS_TRACKING", "off")
        trained(untracked)
    epoch, begun, lost_at = fit._train_epoch, [], []
    mlflow = server.processes()["mlflow"]

    def losing(*arguments: Any) -> float:
        begun.append(1)
        if len(begun) == 3:
            loss(server)
            lost_at.append(time.monotonic())
        return epoch(*arguments)

    monkeypatch.setattr(fit, "_train_epoch", losing)
    try:
        with caplog.at_level(logging.WARNING, "pipelines"):
            trained(project)
        took_s = time.monotonic() - lost_at[0]
    finally:
        if is_alive(mlflow):
            os.killpg(mlflow, signal.SIGCONT)
    # Two tries of ten seconds each, on a machine that may be busy.
    assert took_s < 120
    assert results(project) == results(untracked)
    (line,) = [each.getMessage() for each in caplog.records if "untracked" in each.getMessage()]
    assert server.uri in line
    # Its run is there, unfinished, when the server is; no later stage minds.
    server.does("status", code=0 if loss is stop_mlflow else 3)
    server.does("start")
    assert [run.info.status for run in runs_at(server.uri)].count("RUNNING") >= 1


def test_what_was_started_ends_and_what_was_kept_is_there_again(project, server):
    trained(project)
    before = server.processes()
    assert all(map(is_alive, before.values()))
    # It runs already: nothing is started twice.
    server.does("start")
    assert server.processes() == before
    said = server.does("status").stdout
    assert f"export MLFLOW_TRACKING_URI={server.uri}\n" in said
    server.does("stop")
    assert not any(map(is_alive, before.values()))
    assert server.does("status", code=3).stdout.count("does not run") == 3
    # Where nothing runs there is nothing to stop.
    server.does("stop")
    server.does("start")
    assert "FINISHED" in {run.info.status for run in runs_at(server.uri)}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"PG_BIN": "/nowhere"}, "apt-get install postgresql"),
        ({"PYTHON": "/nowhere"}, "/nowhere is none, or lacks a package: pip install"),
        ({}, "is taken: name another one, POSTGRES_PORT="),
    ],
)
def test_what_stands_in_the_way_is_one_line_and_nothing_stays(environ, expected, server, tmp_path):
    server.does("start")
    other = Server(tmp_path / "other", {**server.environ, **environ})
    done = other.does("start", code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("shared_server: ")
    assert expected in line
    assert not list(other.folder.iterdir())

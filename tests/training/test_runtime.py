"""Where a training runs: alone, and as two processes of which only the primary writes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines import locks
from pipelines.commands import stage
from pipelines.config.params import load_params
from pipelines.errors import BusyError, ConfigError
from pipelines.paths import Paths
from pipelines.training.runtime import Runtime, rank_and_world, this_process
from tests.file_tree import results
from tests.mlflow_server import closed_port

ROOT = Path(__file__).resolve().parents[2]
RANKS = Path(__file__).with_name("ranks.py")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)


def started_as(monkeypatch: pytest.MonkeyPatch, rank: str, world: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)


def test_torch_computes_the_same_each_time_and_fills_nothing_in_vain(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    n_threads = torch.get_num_threads()
    try:
        runtime = this_process(1)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert torch.get_num_threads() == 1
        # Of torchrun's, but with nobody to meet.
        started_as(monkeypatch, "1", "2")
        with pytest.raises(ConfigError, match=r"rank 1 of 2: .* cannot be met .*MASTER_ADDR"):
            this_process(1)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(n_threads)
    assert (runtime.rank, runtime.world, runtime.is_primary) == (0, 1, True)
    assert runtime.reduce(torch.tensor([2.5])).item() == 2.5


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_there_is_not_is_refused(rank, monkeypatch):
    with pytest.raises(ValueError, match=f"rank {rank} of 2: expected 0 to 1"):
        Runtime(rank, 2)
    started_as(monkeypatch, str(rank), "2")
    with pytest.raises(ConfigError, match=f"RANK='{rank}' and WORLD_SIZE='2'"):
        rank_and_world()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_primary_goes_first(rank):
    order = []
    runtime = Runtime(rank, 2, barrier=lambda: order.append("barrier"))
    with runtime.primary_first():
        order.append("block")
    assert order == (["barrier", "block"] if rank else ["block", "barrier"])


def settings(root: Path, **train) -> Paths:
    """A params.yaml with the task ``tiny``, which is trained in this way."""
    document = load_params(ROOT / "params.yaml").task("weld_defect").model_dump(mode="json")
    document |= {"train": train} if train else {}
    (root / "params.yaml").write_text(json.dumps({"seed": 7, "tasks": {"tiny": document}}))
    return Paths(root)


@pytest.mark.parametrize(
    ("verb", "rank", "is_refused"),
    [("train", "0", True), ("train", "1", False), ("export", "1", True)],
)
def test_of_one_training_the_primary_alone_holds_the_lock(
    verb, rank, is_refused, tmp_path, monkeypatch
):
    paths = settings(tmp_path)
    started_as(monkeypatch, rank, "2")
    ran = []
    monkeypatch.setattr(stage, "_run", lambda verb, *_: ran.append(verb))
    answer = pytest.raises(BusyError) if is_refused else contextlib.nullcontext()
    with locks.hold(paths.task("tiny").lock, "another command"), answer:
        stage.main(argparse.Namespace(verb=verb, task="tiny"), paths)
    assert ran == [verb] * (not is_refused)


def start(root: Path, rank: int, world: int, port: int) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
        "FIELDLENS_WORKERS": "1",
        # What torchrun sets.
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return subprocess.Popen(
        [sys.executable, str(RANKS), str(root)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_two_processes_leave_what_one_leaves_and_only_the_primary_writes(
    strategy, tracked_project, train_params, tmp_path
):
    short = {"epochs": 1}
    params = train_params(
        strategy=strategy, views=1, refit=True, head_phase=short, tail_phase=short
    )
    settings(tracked_project.root, **params.model_dump(mode="json"))
    files = tracked_project.task("tiny")
    summary = {"labels": ["red_tile", "green_tile", "blue_tile"], "data_source": "sample"}
    files.prepare_summary.write_text(json.dumps(summary))
    alone = Paths(Path(shutil.copytree(tracked_project.root, tmp_path / "alone")))
    port = closed_port()
    single = start(alone.root, 0, 1, port)
    ranks = [start(tracked_project.root, rank, 2, port) for rank in range(2)]
    said(single)
    primary, other = map(said, ranks)
    assert other == {"written": [], "has_mlflow": False}
    for written in ("models/tiny/float", "reports/tiny/history.csv", ".cache/checkpoints/tiny"):
        assert any(written in path for path in primary["written"]), written
    assert results(tracked_project) == results(alone)

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tracked_project.mlflow_db}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["epoch"] == 2

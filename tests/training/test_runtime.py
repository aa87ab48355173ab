"""Where a training runs: alone, and as two processes of which only the primary writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipelines.paths import Paths
from pipelines.training.runtime import Runtime, one_process
from tests.file_tree import results

RANKS = Path(__file__).with_name("ranks.py")


def test_torch_computes_the_same_each_time_and_fills_nothing_in_vain(monkeypatch):
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    n_threads = torch.get_num_threads()
    try:
        runtime = one_process(1)
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
        assert torch.get_num_threads() == 1
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(n_threads)
    assert (runtime.rank, runtime.world, runtime.is_primary) == (0, 1, True)
    assert runtime.reduce(torch.tensor([2.5])).item() == 2.5


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_there_is_not_is_refused(rank):
    with pytest.raises(ValueError, match=f"rank {rank} of 2: expected 0 to 1"):
        Runtime(rank, 2)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_primary_goes_first(rank):
    order = []
    runtime = Runtime(rank, 2, barrier=lambda: order.append("barrier"))
    with runtime.primary_first():
        order.append("block")
    assert order == (["barrier", "block"] if rank else ["block", "barrier"])


def start(root: Path, rank: int, world: int, params: str) -> subprocess.Popen[str]:
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(folder), "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, str(RANKS), str(root), str(rank), str(world), params],
        env=environment | {"FIELDLENS_WORKERS": "1"},
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
    ).model_dump_json()
    files = tracked_project.task("tiny")
    summary = {"labels": ["red_tile", "green_tile", "blue_tile"], "data_source": "sample"}
    files.prepare_summary.write_text(json.dumps(summary))
    alone = Paths(Path(shutil.copytree(tracked_project.root, tmp_path / "alone")))
    single = start(alone.root, 0, 1, params)
    ranks = [start(tracked_project.root, rank, 2, params) for rank in range(2)]
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

"""Where a training runs: alone, and as two processes of which only the primary writes."""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipelines import locks
from pipelines.commands import stage
from pipelines.commands import train as train_command
from pipelines.config.params import load_params
from pipelines.data.workers import n_workers
from pipelines.errors import BusyError, ConfigError, RanksError, StorageError
from pipelines.kinds.train import KINDS
from pipelines.paths import Paths
from pipelines.training.batches import chunks, epoch_order
from pipelines.training.runtime import Runtime, rank_and_world, this_process
from pipelines.training.shared import share_norms
from tests.file_tree import results
from tests.mlflow_server import closed_port

ROOT = Path(__file__).resolve().parents[2]
RANKS = Path(__file__).with_name("ranks.py")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
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


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_there_is_not_is_refused(rank, monkeypatch):
    with pytest.raises(ValueError, match=f"rank {rank} of 2: expected 0 to 1"):
        Runtime(rank, 2)
    started_as(monkeypatch, str(rank), "2")
    with pytest.raises(ConfigError, match=f"RANK='{rank}' and WORLD_SIZE='2'"):
        rank_and_world()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_primary_goes_first(rank, monkeypatch):
    order = []
    monkeypatch.setattr(Runtime, "everyones", lambda self, value: order.append("barrier"))
    runtime = Runtime(rank, 2)
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


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize(("n_images", "batch_size"), [(1, 2), (2, 8), (9, 7), (40, 8), (41, 8)])
def test_every_image_is_drawn_once_an_epoch_whatever_the_number_of_processes(
    world, n_images, batch_size
):
    order = epoch_order(n_images, np.random.default_rng(1), None)
    ranks = [Runtime(rank, world) for rank in range(world)]
    seen = []
    for rows in chunks(order, batch_size):
        shares = [runtime.share(rows) for runtime in ranks]
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        # A batch is the same pictures in the same order, so that its loss is the same sum.
        assert np.concatenate(shares).tolist() == rows.tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(n_images))


def test_each_process_of_a_machine_has_its_part_of_the_cores(monkeypatch):
    monkeypatch.delenv("FIELDLENS_WORKERS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for n_here, expected in [("", 8), ("1", 8), ("2", 4), ("3", 2), ("16", 1), ("0", 8), ("x", 8)]:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", n_here)
        assert n_workers() == expected
    monkeypatch.setenv("FIELDLENS_WORKERS", "5")
    assert n_workers() == 5


def test_processes_that_train_on_something_else_are_refused_by_name(monkeypatch):
    theirs = {"params": "a" * 64, "images": "b" * 64}
    monkeypatch.setattr(
        Runtime, "everyones", lambda self, value: [value, {**theirs, "images": "c" * 64}]
    )
    with pytest.raises(
        RanksError, match=r"rank 1 of 2: images is cccccccccccc and not bbbb"
    ) as err:
        Runtime(0, 2).check_same(theirs)
    assert "params is" not in str(err.value)


def test_no_room_for_temporary_files_is_one_line(monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(StorageError, match=r"No usable temporary directory .*/nowhere.*TMPDIR"):
        this_process(1)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    started_as(monkeypatch, "2", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    n_threads = torch.get_num_threads()
    try:
        with pytest.raises(ConfigError, match=r"rank 2 of 3: this machine has 2 GPUs.*per-node 2"):
            this_process(n_threads)
    finally:
        torch.use_deterministic_algorithms(False)


def test_norms_that_cannot_be_shared_are_refused():
    class NormAndMore(nn.BatchNorm2d):
        pass

    model = nn.Sequential(nn.Conv2d(3, 4, 1), NormAndMore(4))
    with pytest.raises(ConfigError, match=r"weights: none .* 1 \(NormAndMore\) cannot share"):
        share_norms(model)
    # Where statistics stay, any norm will do.
    share_norms(model.eval())


@pytest.mark.parametrize(
    ("err", "world", "expected"),
    [
        (RuntimeError("[gloo/pair.cc:553] Connection closed by peer"), 2, RanksError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), 2, RuntimeError),
        (RuntimeError("Connection closed by peer"), 1, RuntimeError),
    ],
)
def test_a_lost_process_is_told_in_one_line(err, world, expected):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(expected) as told, Runtime(0, world).together("tiny"):
            raise err
    finally:
        signal.signal(signal.SIGTERM, before)
    if expected is RanksError:
        assert "rank 0 of 2 has lost another process" in str(told.value)
        assert "run the same command again" in str(told.value)


def test_what_all_have_found_the_primary_says_first(monkeypatch, tmp_path):
    waited = []
    monkeypatch.setattr("pipelines.commands.train.time.sleep", waited.append)
    arguments = argparse.Namespace(verb="train", task="nowhere", recipe=None, out=None)
    for rank in ("0", "1"):
        started_as(monkeypatch, rank, "2")
        with pytest.raises(ConfigError):
            train_command.main(arguments, settings(tmp_path))
    assert len(waited) == 1


# -- with torchrun --------------------------------------------------------------------------------
def torchrun(
    n: int, script: Path, *arguments: str, within: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
        "FIELDLENS_WORKERS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(n), "--master-port"]
    return subprocess.run(
        [*within, sys.executable, *command, str(closed_port()), str(script), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def said(run: subprocess.CompletedProcess[str]) -> list[dict]:
    """What each process printed, by its rank."""
    assert run.returncode == 0, run.stderr
    told = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return sorted(told, key=lambda each: each["rank"])


def curve(paths: Paths) -> list[list[float]]:
    """Losses and val values of history.csv."""
    rows = csv.DictReader(paths.task("tiny").history.read_text().splitlines())
    return [[float(row[name]) for name in ("train_loss", "val_loss")] for row in rows]


@pytest.fixture
def tiny_task(tracked_project, train_params):
    """The tiny project with its params; its batch norms move, and so are shared."""

    def make(strategy: str, **train) -> Paths:
        phase = {"epochs": 2, "schedule": "constant", "warmup_fraction": 0.0}
        params = train_params(
            strategy=strategy,
            backbone="mobilenet_v2",
            optimizer="sgd",
            views=1,
            head_phase=phase,
            # From random weights, each step of the tail blows roundings up: one epoch of them.
            tail_phase={**phase, "learning_rate": 0.001, "epochs": 1},
            **train,
        )
        settings(tracked_project.root, **params.model_dump(mode="json"))
        files = tracked_project.task("tiny")
        summary = {"labels": ["red_tile", "green_tile", "blue_tile"], "data_source": "sample"}
        files.prepare_summary.write_text(json.dumps(summary))
        return tracked_project

    return make


@pytest.mark.slow
def test_every_kind_has_one_loss_curve_whatever_the_number_of_processes(tmp_path):
    """Three processes, of which one has no picture of the last batch."""
    run = torchrun(3, Path(__file__).with_name("shared_loss.py"), str(tmp_path))
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert len(found) == 1 + len(KINDS) + 2
    alone, shared = found.pop("norms")
    assert shared == pytest.approx(alone, rel=1e-9, abs=1e-9)
    for name, (alone, shared) in found.items():
        assert max(alone[:-1]) - min(alone[:-1]) > 1e-3, f"{name}: nothing is learned"
        # Roundings grow with each step of a network that starts from random weights.
        assert shared == pytest.approx(alone, rel=2e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["cached", "full"])
def test_two_processes_train_as_one_does_and_only_the_primary_writes(strategy, tiny_task, tmp_path):
    shared = tiny_task(strategy, refit=True)
    alone = Paths(Path(shutil.copytree(shared.root, tmp_path / "alone")))
    one_of_one = Paths(Path(shutil.copytree(shared.root, tmp_path / "one")))
    said(torchrun(1, RANKS, str(one_of_one.root)))
    single = [sys.executable, str(RANKS), str(alone.root)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIELDLENS_WORKERS": "1"}
    subprocess.run(single, env=environment, check=True, capture_output=True)
    primary, other = said(torchrun(2, RANKS, str(shared.root)))
    # One of torchrun's is the plain training.
    assert results(one_of_one) == results(alone)
    assert np.array(curve(shared)) == pytest.approx(np.array(curve(alone)), rel=1e-3)
    activations = {path for path in other["written"] if "values.npy" in path}
    assert set(other["written"]) == activations
    assert bool(activations) == (strategy == "cached")
    assert not other["has_mlflow"]
    for written in ("models/tiny/float", "reports/tiny/history.csv", ".cache/checkpoints/tiny"):
        assert any(written in path for path in primary["written"]), written

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{shared.mlflow_db}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["epoch"] == 3


def only_line(run: subprocess.CompletedProcess[str]) -> str:
    """What the processes of a training that ended with an error had to say, beside torchrun."""
    assert run.returncode == 1
    lines = [line for line in run.stderr.splitlines() if line.startswith("fieldlens: ")]
    assert len(lines) == 1, run.stderr
    assert run.stderr.count("Traceback") == 1, "torchrun's own alone"
    return lines[0]


def leftovers(root: Path) -> list[Path]:
    return list(root.rglob(".tmp-*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("rank", "fate", "expected"),
    [
        ("1", "killed", "rank 0 of 2 has lost another process"),
        ("0", "killed", "rank 1 of 2 has lost another process"),
        ("0", "full", "checkpoint.safetensors: cannot be written (File too large)"),
    ],
)
def test_what_befalls_one_process_ends_all_and_another_number_goes_on_from_the_checkpoint(
    rank, fate, expected, tiny_task, tmp_path
):
    paths = tiny_task("full")
    untouched = Paths(Path(shutil.copytree(paths.root, tmp_path / "untouched")))
    said(torchrun(1, RANKS, str(untouched.root)))
    ended = torchrun(2, RANKS, str(paths.root), rank, "3", fate)
    assert expected in only_line(ended)
    assert not paths.task("tiny").history.exists()
    assert fate == "killed" or not leftovers(paths.root)
    said(run := torchrun(1, RANKS, str(paths.root)))
    assert "going on after epoch 2" in run.stderr
    assert not leftovers(paths.root)
    assert np.array(curve(paths)) == pytest.approx(np.array(curve(untouched)), rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_full_disk_of_a_process_that_writes_nothing_costs_nothing(tiny_task, tmp_path):
    """It fills its rows of the activations, for which the primary has set bytes aside."""
    paths = tiny_task("cached")
    untouched = Paths(Path(shutil.copytree(paths.root, tmp_path / "untouched")))
    said(torchrun(2, RANKS, str(untouched.root)))
    said(torchrun(2, RANKS, str(paths.root), "1", "0", "full"))
    assert results(paths) == results(untouched)


def with_little_room(folder: Path) -> list[str]:
    """What a command is to begin with, to find a folder on a disk of its own of 16 kB."""
    within = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    if subprocess.run([*within, "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    folder.mkdir(parents=True)
    script = f"mount -t tmpfs -o size=16k none '{folder}' && exec \"$@\""
    return [*within, "bash", "-c", script, "bash"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("n", [1, 2])
def test_a_disk_too_full_for_activations_is_one_line(n, tiny_task):
    paths = tiny_task("cached")
    within = with_little_room(paths.activations_dir)
    line = only_line(torchrun(n, RANKS, str(paths.root), within=within))
    assert re.search(r"activations/\w+: cannot be written \(No space left on device\)", line)
    assert not paths.task("tiny").float_dir.exists()
    said(torchrun(n, RANKS, str(paths.root)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("params.yaml", '"seed": 7', '"seed": 8', "params.yaml's train section and seed"),
        # A group is in another split.
        (
            "manifest.csv",
            '"blue_tile-train-0","","train"',
            '"blue_tile-train-0","","val"',
            "manifest.csv's images and splits",
        ),
    ],
)
def test_processes_that_disagree_end_with_one_line(file, old, new, expected, tiny_task, tmp_path):
    paths = tiny_task("full")
    other = Paths(Path(shutil.copytree(paths.root, tmp_path / "other")))
    (path,) = other.root.rglob(file)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    port = str(closed_port())
    ranks = [
        subprocess.Popen(
            [sys.executable, str(RANKS), str(each.root)],
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "GLOO_SOCKET_IFNAME": "lo",
                "FIELDLENS_WORKERS": "1",
                # What torchrun sets.
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, each in enumerate((paths, other))
    ]
    for process in ranks:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 2
        (line,) = err.splitlines()
        assert f"rank 1 of 2: the sha256 of {expected} is" in line
    for each in (paths, other):
        assert not each.task("tiny").float_dir.exists()

"""Where the extra ``scale`` is installed: what `make` sets up has no Ray."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import closed_port
from tests.processes import ROOT
from tests.ray_nodes import two_nodes

pytest.importorskip("ray", reason="the extra scale is not installed")
pytestmark = pytest.mark.slow


def score(root: Path, source: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", "score", "toy", str(source)]
    command += ["--root", str(root), "--out", str(out), "--part", "3", *more]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250
    )


@pytest.fixture
def pictures(tmp_path, colour_images) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(10):
        colour = ("green", "red", "blue")[number % 3]
        shutil.copy(colour_images[colour], folder / f"{number}.png")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of two nodes of a processor each."""
    with two_nodes(tmp_path, monkeypatch) as nodes:
        yield nodes.address


def test_a_cluster_gives_the_bytes_of_one_process(
    toy_project, toy_bundle, pictures, tmp_path, cluster, monkeypatch
):
    assert score(toy_project, pictures, tmp_path / "one.csv", "--workers", "1").returncode == 0
    there = score(
        toy_project, pictures, tmp_path / "ray.csv", "--workers", "2", "--address", cluster
    )
    assert there.returncode == 0, there.stderr
    assert (tmp_path / "ray.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    # A shortage of processors is told, where Ray would wait for ever.
    short = score(toy_project, pictures, tmp_path / "c.csv", "--workers", "3", "--address", cluster)
    assert short.returncode == 2
    assert "3 asked, but the cluster has 2 processors" in short.stderr
    monkeypatch.setenv("RAY_AUTH_TOKEN", "f" * 64)
    stranger = score(toy_project, pictures, tmp_path / "d.csv", "--address", cluster)
    assert stranger.returncode == 2
    assert "cannot join" in stranger.stderr.splitlines()[-1]


def test_a_cluster_of_this_machine_is_started_and_ended(
    toy_project, toy_bundle, pictures, tmp_path
):
    there = score(toy_project, pictures, tmp_path / "ray.csv", "--workers", "1", "--engine", "ray")
    assert there.returncode == 0, there.stderr
    assert len((tmp_path / "ray.csv").read_text().splitlines()) == 12


def test_an_address_that_answers_not_is_told_in_seconds(
    toy_project, toy_bundle, pictures, tmp_path
):
    address = f"127.0.0.1:{closed_port()}"
    start = time.monotonic()
    there = score(toy_project, pictures, tmp_path / "ray.csv", "--address", address)
    assert there.returncode == 2
    assert there.stderr.splitlines()[-1].startswith(
        f"fieldlens: --address: nothing answers at {address}"
    )
    assert time.monotonic() - start < 60
    assert not (tmp_path / "ray.csv").exists()

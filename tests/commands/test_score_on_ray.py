"""Where the extra ``scale`` is installed: what `make` sets up has no Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipelines.serving.bundle import Artefact, read_bundle
from tests.loopback import closed_port
from tests.processes import ROOT
from tests.ray_nodes import two_nodes

ray = pytest.importorskip("ray", reason="the extra scale is not installed")
pytestmark = pytest.mark.slow


def command_of(root: Path, source: Path, out: Path) -> list[str]:
    command = [sys.executable, "-m", "pipelines.cli", "score", "toy", str(source)]
    return [*command, "--root", str(root), "--out", str(out), "--part", "3"]


def score(root: Path, source: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*command_of(root, source, out), *more]
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


def test_a_worker_that_is_killed_is_made_anew(toy_project, toy_bundle, colour_images, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(1000):
        os.link(colour_images["green"], folder / f"{number:04d}.png")
    out = tmp_path / "answers.csv"
    process = subprocess.Popen(
        [*command_of(toy_project, folder, out), "--engine", "ray", "--workers", "1"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    killed, until = 0, time.monotonic() + 150
    while process.poll() is None and not killed and time.monotonic() < until:
        if len(list((tmp_path / "answers.csv.parts").glob("[0-9]*"))) > 1:
            for worker in workers_of(process.pid):
                os.kill(worker, signal.SIGKILL)
                killed += 1
        time.sleep(0.02)
    _, err = process.communicate(timeout=150)
    assert killed == 1
    assert process.returncode == 0, err
    assert len(out.read_text().splitlines()) == 1001


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_picture_that_ends_each_worker_is_told_and_the_rest_is_kept(
    toy_project, toy_bundle, pictures, tmp_path, engine, monkeypatch
):
    (tmp_path / "sitecustomize.py").write_text(POISON)
    shutil.copy(pictures / "0.png", pictures / "9_poison.png")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    out = tmp_path / "answers.csv"
    there = score(toy_project, pictures, out, "--engine", engine, "--workers", "2")
    assert there.returncode == 2, there.stderr
    assert "run the same command again" in there.stderr.splitlines()[-1]
    assert not out.exists()
    # Twelve pictures by three; the last part holds it.
    assert len(list(tmp_path.rglob("0*.parquet"))) == 3
    (tmp_path / "sitecustomize.py").unlink()
    assert score(toy_project, pictures, out, "--workers", "1").returncode == 0
    assert len(out.read_text().splitlines()) == 13


#: A decoder that crashes.
POISON = """
import os, sys
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("poison.png"):
        os.kill(os.getpid(), 9)
sys.addaudithook(hook)
"""


def workers_of(pid: int) -> set[int]:
    """Process ids of Ray's actors that answer, below a process."""
    found = set()
    # Each may end meanwhile.
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "MapWorker" in " ".join(child.cmdline()):
                    found.add(child.pid)
    return found


def test_what_fails_in_an_actor_is_told_in_its_own_words(
    toy_project, toy_bundle, pictures, tmp_path
):
    # The driver sees the hash of the bundle alone, and a session is made by the actor.
    junk = Artefact.of("model_int8.onnx", "int8", b"no model")
    bundle = read_bundle(toy_bundle)
    others = tuple(each for each in bundle.artefacts if each.precision != "int8")
    changed = bundle.model_copy(update={"artefacts": (*others, junk)})
    toy_bundle.write_text(changed.to_json(), encoding="utf-8")
    (toy_bundle.parent / junk.name).write_bytes(b"no model")
    out = tmp_path / "answers.csv"
    for engine in ("ray", "local"):
        more = ("--precision", "int8", "--workers", "2", "--engine", engine)
        there = score(toy_project, pictures, out, *more)
        assert there.returncode == 2
        assert "the model file was not loaded" in there.stderr.splitlines()[-1]
        assert not out.exists()


def test_a_cluster_of_another_version_is_told(toy_project, toy_bundle, pictures, tmp_path):
    """A real head whose Ray says that it is another."""
    port, environment = closed_port(), {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_AUTH_MODE": "disabled"}
    older = "import ray, sys; ray.__version__ = '2.0.0'; from ray.scripts.scripts import main; "
    older += "sys.argv[0] = 'ray'; main()"
    options = ["start", "--num-cpus=1", "--block", "--head", f"--port={port}"]
    head = subprocess.Popen(
        [sys.executable, "-c", older, *options, "--include-dashboard=false"],
        env=environment,
        start_new_session=True,
    )
    try:
        time.sleep(8)
        out = tmp_path / "ray.csv"
        there = score(toy_project, pictures, out, "--address", f"127.0.0.1:{port}")
    finally:
        head.terminate()
        head.wait(60)
    assert there.returncode == 2
    said = there.stderr.splitlines()[-1]
    assert said.startswith(f"fieldlens: --address: 127.0.0.1:{port}: Ray {ray.__version__} cannot")
    assert "Version mismatch" in said
    assert "2.0.0" in said
    assert not out.exists()


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

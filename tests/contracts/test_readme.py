"""The commands that README.md and docs/ show are run: the quick ones now, the others when asked.

Blocks marked ```console hold commands after `$ ` and what they print. Every command must be in one
of the lists below, so that a new one cannot go untried.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.loopback import closed_port
from tests.processes import ROOT, ran, tracked_or_new, with_venv

#: Answer at once, on any checkout. 2: the doctor of a fresh clone has something to say.
QUICK = {"make": 0, "fieldlens --help": 0, "fieldlens tasks": 0}
#: Run in order, in a copy of the checkout; together some ten minutes.
HEAVY_STARTS = (
    "make repro",
    "fieldlens doctor",
    "fieldlens predict",
    "fieldlens explain",
    "dvc repro",
    "dvc metrics",
    "dvc plots",
    "dvc exp",
    "FIELDLENS_WEIGHTS=",
)
#: Each command that goes on until it is stopped, with its port variable and what its page says.
SERVERS = {"make ui": ("PORT", b"MLflow"), "make app": ("APP_PORT", b"Streamlit")}
SHELL_ONLY = {"source .venv/bin/activate"}
#: README first: it makes what the others ask.
PAGES = ("README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")))
#: Words of README, at most.
MOST_WORDS = 1_300


def blocks(*names: str) -> list[tuple[str, list[str]]]:
    """Each command of some pages, of `PAGES` by default, with the lines that are shown below it."""
    text = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names or PAGES)
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def run(command: str, cwd: Path, code: int = 0) -> str:
    """What a command line of the shell prints."""
    environ = {**with_venv(), "COLUMNS": "100"}
    # What pytest set for itself must not reach the command.
    environ.pop("FIELDLENS_TRACKING", None)
    return ran("bash", "-c", command, cwd=cwd, environ=environ, code=code, timeout_s=3000).stdout


def test_every_command_is_in_a_list():
    for command, _ in blocks():
        assert (
            command in QUICK
            or command in SHELL_ONLY
            or command in SERVERS
            or command.startswith(HEAVY_STARTS)
        ), command


@pytest.mark.parametrize("command", QUICK)
def test_quick_command_runs_and_prints_what_is_shown(command):
    shown = dict(blocks())[command]
    printed = run(command, ROOT, QUICK[command]).splitlines()
    assert printed
    for line in shown:
        assert line in printed or line.strip() in {"", "..."}


def test_contributing_names_targets_that_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command, _ in blocks("CONTRIBUTING.md"):
        target = command.removeprefix("make ")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), command


def test_readme_stays_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MOST_WORDS


@pytest.mark.parametrize("page", ["README.md", "docs/reference/python.md"])
def test_python_that_is_shown_runs(page, tested_project, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    files = tested_project.task("tiny")
    shutil.copytree(files.mobile_dir, tmp_path / "models/tomato_leaf/mobile")
    (picture, *_) = sorted(files.raw_dir.glob("*/test_*.png"))
    shutil.copyfile(picture, tmp_path / "leaf.jpg")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = ran(sys.executable, "-c", code, cwd=tmp_path, environ=environ)
    label, probability = done.stdout.split()
    assert label == picture.parent.name
    assert 0 < float(probability) <= 1


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is in Git, with the checkout's own .venv and downloads."""
    if not (ROOT / ".venv/.stamp").exists() or not (ROOT / ".cache/weights/.stamp").exists():
        pytest.skip("needs `make setup`")
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in tracked_or_new():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    (folder / ".cache").mkdir()
    shutil.copytree(ROOT / ".cache/weights", folder / ".cache/weights", symlinks=True)
    # Older than the stamp: this copy must never install itself into the checkout's .venv.
    long_ago = (ROOT / ".venv/.stamp").stat().st_mtime - 3600
    for name in ("pyproject.toml", "constraints.txt", "pipelines/backbones/weights.py"):
        os.utime(folder / name, (long_ago, long_ago))
    (folder / ".cache/weights/.stamp").touch()
    identity = "git config user.email readme@example.org && git config user.name readme"
    run(f"git init -q && {identity} && git add -A && git commit -qm start", folder)
    return folder


@pytest.mark.slow
@pytest.mark.by_hand(reason="runs the whole pipeline again, twice ten minutes, in a copy")
@pytest.mark.timeout(3600)
def test_heavy_commands_run_in_order(clone):
    for command, _ in blocks():
        if command in SHELL_ONLY or command in SERVERS:
            continue
        run(command, clone)
        if command == "make repro":
            # As the owner of a checkout would, so that experiments start from a commit.
            run("git add -A && git commit -qm repro", clone)
            again = run("make repro", clone)
            assert "Running stage" not in again, "nothing changed, nothing runs"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", SERVERS)
def test_server_answers_on_this_machine_alone(clone, command):
    variable, expected = SERVERS[command]
    port = closed_port()
    server = subprocess.Popen(
        [*command.split(), f"{variable}={port}"],
        cwd=clone,
        env=with_venv(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 600
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert expected in page.read()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "no answer within ten minutes"
                time.sleep(1)
        listing = Path("/proc/net/tcp").read_text()
        everywhere = f" 00000000:{port:04X} "
        assert everywhere not in listing, "it listens on other interfaces, too"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:  # how fast a server of others ends is not ours to test
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()

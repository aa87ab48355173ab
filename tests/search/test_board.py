"""Cells one after another: what is kept, what fails alone, what is written, what MLflow sees."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from pipelines.commands.board import objective_of
from pipelines.config.params import load_params
from pipelines.errors import WeightsError
from pipelines.paths import Paths
from pipelines.search.board import in_this_process, is_sound, run_board
from pipelines.search.cells import Cell, Outcome, cells_of
from pipelines.search.objective import Objective
from tests.file_tree import file_tree
from tests.tiny_board import make_project, result, variant

ROOT = Path(__file__).resolve().parents[2]


class Bench:
    """Stands for the training of cells; notes them, and does what is asked for one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[float] = []
        self.instead: dict[float, BaseException] = {}
        self.steady = True
        monkeypatch.setattr(Objective, "__call__", self._call(), raising=True)

    def _call(self):
        def call(_objective: Objective, cell: Cell, _observer=None):
            self.ran.append(cell.width)
            if cell.width in self.instead:
                raise self.instead[cell.width]
            fp32 = variant(0.75, cell.width, 2, steady=self.steady)
            return result(cell, fp32, variant(0.75, cell.width / 2, 1), int(100 * cell.width))

        return call


@pytest.fixture
def bench(monkeypatch) -> Bench:
    return Bench(monkeypatch)


def run(project: Paths, code: str = "code", *, retry: bool = False, engine=in_this_process):
    objective = objective_of("tiny", load_params(project.params), project)
    cells = cells_of(objective.board)
    return run_board(objective, cells, lambda _: code, retry=retry, engine=engine)


def test_board_that_was_ended_goes_on_with_the_cell_at_which_it_was(project, bench):
    bench.instead[0.5] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(project)
    files = project.task("tiny")
    [kept] = (files.board_dir / "cells").iterdir()
    assert kept == files.board_cell("toy-x1-32px")
    del bench.instead[0.5]
    records = run(project)
    assert bench.ran == [1.0, 0.5, 0.5]
    assert [record.cell.width for record in records] == [1.0, 0.5]
    assert all(map(is_sound, records))
    before = file_tree(files.board_dir)
    assert set(before) >= {"board.csv", "front.csv", "board.png"}
    assert run(project) == records
    assert (bench.ran, file_tree(files.board_dir)) == ([1.0, 0.5, 0.5], before)


def test_a_cell_of_other_code_or_params_or_a_damaged_file_runs_again(project, bench):
    run(project)
    run(project, "other code")
    assert bench.ran == [1.0, 0.5, 1.0, 0.5]
    project.task("tiny").board_cell("toy-x0.5-32px").write_text('{"key": "ha')
    run(project, "other code")
    assert bench.ran[4:] == [0.5]
    make_project(project, resamples=300)
    run(project, "other code")
    assert bench.ran[5:] == [1.0, 0.5]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (WeightsError("no provider gave\nthe weights."), "no provider gave the weights."),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
    ],
)
def test_a_cell_fails_alone_and_is_tried_again_when_that_is_asked(error, says, project, bench):
    bench.instead[1.0] = error
    failed, sound = run(project)
    assert (failed.error, failed.result, sound.error) == (says, None, None)
    with project.task("tiny").board.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["width"], row["precision"], row["error"]) for row in rows] == [
        ("0.5", "fp32", ""),
        ("0.5", "int8", ""),
        ("1.0", "", says),
    ]
    bench.instead.clear()
    assert run(project) == [failed, sound]
    mended, _ = run(project, retry=True)
    assert is_sound(mended)
    assert bench.ran == [1.0, 0.5, 1.0]


def test_refused_latency_is_told_in_the_row_and_measured_again_when_that_is_asked(project, bench):
    bench.steady = False
    checkpoint = project.cache_dir / "boards" / "tiny" / "toy-x1-32px" / "checkpoint"
    checkpoint.mkdir(parents=True)
    run(project)
    assert checkpoint.is_dir(), "a second try needs no second training"
    with project.task("tiny").board.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["precision"], row["ms"] == "", row["is_on_front"]) for row in rows} == {
        ("fp32", True, "0"),
        # The narrower is quicker, and as accurate.
        ("int8", False, "0"),
        ("int8", False, "1"),
    }
    assert "two passes differ by 40%" in rows[0]["refusal"]
    bench.steady = True
    assert all(map(is_sound, run(project, retry=True)))
    assert bench.ran == [1.0, 0.5, 1.0, 0.5]
    assert not checkpoint.exists()


def test_tables_show_what_is_known_of_the_section_whichever_cells_were_asked_for(project, bench):
    objective = objective_of("tiny", load_params(project.params), project)
    wide, narrow = cells_of(objective.board)
    for asked in (wide, narrow):
        run_board(objective, [asked], lambda _: "code", retry=False)
    with project.task("tiny").board.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["width"] for row in rows] == ["1.0", "1.0", "0.5", "0.5"]
    with project.task("tiny").board_front.open(newline="") as stream:
        front = list(csv.DictReader(stream))
    assert front == [row for row in rows if row["is_on_front"] == "1"] != []


def stops_the_wide(objective, cells, begun, done):
    """An engine that goes from the end, and stops one."""
    for cell in reversed(cells):
        begun(cell)
        if cell.width == 1.0:
            done(Outcome(cell=cell, stopped="stopped after epoch 3: val_loss 0.9 is too high"))
        else:
            done(Outcome(cell=cell, result=objective(cell)))


def test_a_cell_that_an_engine_stopped_says_so_and_runs_whole_when_that_is_asked(project, bench):
    checkpoint = project.cache_dir / "boards" / "tiny" / "toy-x1-32px" / "checkpoint"
    checkpoint.mkdir(parents=True)
    stopped, sound = run(project, engine=lambda: nullcontext(stops_the_wide))
    assert (stopped.cell.width, sound.cell.width) == (1.0, 0.5)
    assert (stopped.result, stopped.error, is_sound(stopped)) == (None, None, False)
    with project.task("tiny").board.open(newline="") as stream:
        rows = {row["width"]: row for row in csv.DictReader(stream)}
    assert rows["1.0"]["error"].startswith("stopped after epoch 3")
    assert rows["1.0"]["accuracy"] == ""
    assert checkpoint.is_dir(), "its training goes on where it was stopped"
    assert run(project) == [stopped, sound]
    assert bench.ran == [0.5]
    assert all(map(is_sound, run(project, retry=True)))
    assert bench.ran == [0.5, 1.0]
    assert not checkpoint.exists()


@pytest.mark.slow
def test_mlflow_has_a_run_a_board_with_a_child_a_cell(project, bench, mlflow_template, monkeypatch):
    import shutil

    from mlflow import MlflowClient

    monkeypatch.delenv("FIELDLENS_TRACKING")
    shutil.copyfile(mlflow_template, project.mlflow_db)
    bench.instead[0.5] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(project)
    bench.instead[0.5] = WeightsError("none there.")
    run(project)
    client = MlflowClient(tracking_uri=f"sqlite:///{project.mlflow_db}")
    experiment = client.get_experiment_by_name("tiny").experiment_id

    def found() -> dict[str, list]:
        by_name: dict[str, list] = {}
        for each in client.search_runs([experiment]):
            by_name.setdefault(each.info.run_name, []).append(each)
        return by_name

    runs = found()
    [parent], [wide], [narrow] = (runs[name] for name in ("board", "toy-x1-32px", "toy-x0.5-32px"))
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in (wide, narrow)} == {parent.info.run_id}
    assert (wide.info.status, narrow.info.status) == ("FINISHED", "FAILED")
    assert wide.data.params["backbone"] == "toy"
    assert wide.data.metrics["int8.accuracy.value"] == 0.75
    assert narrow.data.tags["fieldlens.error"] == "none there."
    kept = {file.path for file in client.list_artifacts(parent.info.run_id, "board")}
    assert {"board/board.csv", "board/front.csv", "board/board.png"} <= kept
    # A cell that is tried again is a child more, in the same board; the others are not told again.
    bench.instead.clear()
    run(project, retry=True)
    assert {name: len(each) for name, each in found().items()} == {
        "board": 1,
        "toy-x1-32px": 1,
        "toy-x0.5-32px": 2,
    }
    # One that an engine stopped has not failed.
    run(project, "other code", engine=lambda: nullcontext(stops_the_wide))
    assert sorted(each.info.status for each in found()["toy-x1-32px"]) == ["FINISHED", "KILLED"]


_CHILD = """
import sys
from pathlib import Path
import pytest, torch
torch.set_num_threads(1)
from tests.tiny_board import with_toy
with_toy(pytest.MonkeyPatch(), Path(sys.argv[2]))
from pipelines import cli
sys.exit(cli.main(["board", "tiny", "--root", sys.argv[1]]))
"""


@pytest.mark.slow
def test_killed_board_loses_nothing(project, tmp_path):
    """By SIGKILL, in the training of the second cell."""
    command = [sys.executable, "-c", _CHILD, str(project.root), str(tmp_path / "weights")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FIELDLENS_TRACKING": "off"}
    files = project.task("tiny")
    first, second = (files.board_cell(f"toy-x{width}-32px") for width in ("1", "0.5"))
    checkpoints = project.cache_dir / "boards" / "tiny" / "toy-x0.5-32px"
    board = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 250
    while not checkpoints.is_dir() and board.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(board.pid, signal.SIGKILL)
    assert board.communicate()[1] is not None
    assert board.returncode == -signal.SIGKILL
    assert first.is_file()
    assert not second.exists()
    assert not files.board.exists()
    kept = first.stat()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cell 1 of 2" not in done.stderr
    assert "cell 2 of 2: toy x0.5, 32 px" in done.stderr
    assert (first.stat().st_mtime_ns, first.stat().st_ino) == (kept.st_mtime_ns, kept.st_ino)
    assert "tiny: 2 networks in 4 files" in done.stdout
    assert not checkpoints.exists()

"""Questions to processes of a Ray cluster; where the extra ``scale`` is not installed, in part."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.commands.board import objective_of
from pipelines.config.params import load_params
from pipelines.errors import PipelineError
from pipelines.scale import sweeps
from pipelines.scale.boards import halving_of
from pipelines.scale.sweeps import Halving
from pipelines.search.cells import cells_of, read_record
from tests.processes import CLI, ROOT, ran
from tests.ray_nodes import two_nodes
from tests.tiny_board import make_project


def needs_ray(test: Any) -> Any:
    try:
        import optuna  # noqa: F401
        import ray  # noqa: F401
    except ImportError:
        test = pytest.mark.skip(reason="the extra scale, or Optuna, is not installed")(test)
    return pytest.mark.slow(test)


@pytest.mark.parametrize(
    ("monitor", "epochs", "expected"),
    [
        ("val_loss", (20, 12), Halving("val_loss", "min", 32, first=3)),
        ("val_macro_f1", (1, 0), Halving("val_macro_f1", "max", 1, first=1)),
    ],
)
def test_cells_are_stopped_by_what_picks_the_epoch(tiny_project, monitor, epochs, expected):
    project = make_project(tiny_project)
    train = load_params(project.params).task("tiny").train
    phases = [train.head_phase.model_copy(update={"epochs": n}) for n in epochs]
    update = {"monitor": monitor, "head_phase": phases[0], "tail_phase": phases[1]}
    assert halving_of(train.model_copy(update=update)) == expected


def test_a_cluster_that_has_lost_its_processors_is_told(monkeypatch):
    monkeypatch.setattr(sweeps, "_LOOK_S", -1.0)
    left = {"CPU": 1.0}
    ray = SimpleNamespace(cluster_resources=lambda: left)
    watch = sweeps._Watch(ray, [{}], print, print, "")
    trials = [SimpleNamespace(status="PENDING")]
    watch.on_step_end(trials=trials)
    left.clear()
    with pytest.raises(PipelineError, match="no node with a processor is left in the cluster"):
        watch.on_step_end(trials=trials)


# -- with Ray -------------------------------------------------------------------------------------
_SWEEPS = """
import json, sys
from optuna.distributions import IntDistribution
from pipelines.scale.cluster import joined
from pipelines.scale.sweeps import Halving, Sampled, sweep
from tests.scale import asked
n_workers, address, calls = json.loads(sys.argv[1])
found = []
with joined(n_workers, address) as cluster:
    for name, questions, halving in calls:
        found.append([])
        def done(trial):
            found[-1].append([trial.question, trial.answer, trial.error, trial.stopped])
        workers = cluster
        if isinstance(questions, dict):
            questions = Sampled({"x": IntDistribution(0, 9)}, asked.OneFurther(), **questions)
            # One after another, so that each is drawn by all before it.
            workers = cluster._replace(n_workers=1)
        halving = Halving(**halving) if halving else None
        sweep(getattr(asked, name), questions, workers, done=done, halving=halving)
print(json.dumps(found))
"""


def command_of(
    *calls: tuple[Any, ...], n_workers: int = 2, address: str | None = None
) -> list[str]:
    """Some sweeps: a function's name, its questions, and by what trials are stopped."""
    return [sys.executable, "-c", _SWEEPS, json.dumps([n_workers, address, calls])]


@needs_ray
def test_questions_listed_and_sampled_trials_stopped_and_processes_killed(tmp_path):
    halving = {"metric": "height", "mode": "max", "max_steps": 10}
    sampled = {"metric": "reward", "mode": "max", "n_questions": 4, "known": [[{"x": 2}, -4.0]]}
    done = ran(
        *command_of(
            ("square", [{"x": x} for x in range(8)], None),
            ("climb", [{"x": x} for x in (4, 5, 6, 3, 2, 1)], halving),
            ("dies", [{"x": x, "marks": str(tmp_path)} for x in ("once", "always", "never")], None),
            ("hill", sampled, None),
        )
    )
    *listed, hill = json.loads(done.stdout)
    square, climb, dies = ({question["x"]: rest for question, *rest in each} for each in listed)
    # Each question once, on one thread, in processes that stay.
    assert square.pop(3) == [None, "ValueError: no three, please", None]
    assert {x: answer["y"] for x, (answer, *_) in square.items()} == {
        x: x * x for x in range(8) if x != 3
    }
    answers = [answer for answer, *_ in square.values()]
    assert {tuple(answer["threads"]) for answer in answers} == {("1", "1")}
    assert len({answer["process"] for answer in answers}) <= 2
    # The best is never stopped, and of the others some are, where trials are compared.
    assert len(climb) == 6
    assert climb[6] == [{"height": 60.0}, None, None]
    stopped = {x: stop for x, (answer, _, stop) in climb.items() if answer is None}
    assert {3, 2, 1} & set(stopped)
    for x, (step, value) in stopped.items():
        assert (step in (1, 3, 9), value) == (True, x * step)
    # One whose process was lost is asked again, twice.
    assert dies["once"] == dies["never"] == [{"y": 1}, None, None]
    answer, error, _ = dies["always"]
    assert answer is None
    assert error.startswith("its process was lost 3 times, perhaps for want of memory (The actor")
    # A sampler learns from what is known and from each answer; one that is no number has failed.
    assert [question["x"] for question, *_ in hill] == [3, 4, 5, 5]


_BOARD = """
import sys
from functools import cache, partial
from pathlib import Path
from pipelines.commands.board import objective_of
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.scale.boards import ray_engine
from pipelines.search.board import run_board
from pipelines.search.cells import cells_of
from tests.scale.asked import ToyObjective
paths, marks, address = Paths(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
whole = objective_of("tiny", load_params(paths.params), paths)
values = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
engine = partial(ray_engine, 2, address)
cells = cells_of(whole.board)
# As the command has it: nothing that could be pickled.
code_of = cache(lambda _: "code")
run_board(ToyObjective(**values, marks=marks), cells, code_of, retry=False, engine=engine)
"""


@contextmanager
def started(command: list[str], **how: Any) -> Iterator[subprocess.Popen[str]]:
    """A command at work, killed at the end if it still is."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, **how) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 300
    while not file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, f"no {file.name}"
        time.sleep(0.05)


# It starts eight processes of Ray and of the command: minutes, where others work beside it.
@pytest.mark.timeout(1200)
@needs_ray
def test_a_board_on_two_nodes_whose_driver_is_killed_and_a_node_that_is_lost(
    tiny_project, tmp_path, monkeypatch
):
    project, marks = make_project(tiny_project), tmp_path / "marks"
    marks.mkdir()
    files = project.task("tiny")
    wide, narrow = (files.board_cell(f"toy-x{width}-32px") for width in ("1", "0.5"))
    with two_nodes(tmp_path, monkeypatch) as nodes:
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "FIELDLENS_TRACKING": "off"}
        board = [sys.executable, "-c", _BOARD, str(project.root), str(marks), nodes.address]
        with started(board, env=environ, stderr=subprocess.STDOUT) as driver:
            wait_for(wide, driver)
            # The narrow one has its processor still.
            short = [*CLI, "board", "tiny", "--root", project.root, "--address", nodes.address]
            for asked, says in (
                (3, "--workers: 3 asked, but the cluster has 2 processors."),
                (2, "--workers: 2 asked, but of the cluster's 2 processors 1 are free."),
            ):
                refused = ran(*short, "--workers", asked, environ=environ, code=2)
                assert refused.stderr.startswith(f"fieldlens: {says}")
        assert not narrow.exists()
        assert not files.board.exists()
        kept = wide.stat().st_mtime_ns
        (marks / "go").touch()
        ran(*board, environ=environ, timeout_s=900)
        # Both at once, in any order; then the narrow one again.
        assert sorted((marks / "begun").read_text().split()) == ["0.5", "0.5", "1.0"]
        assert wide.stat().st_mtime_ns == kept
        assert files.board.is_file()

        (marks / "go").unlink()
        asked = [{"x": x, "marks": str(marks)} for x in (1, 2)]
        with started(command_of(("waits", asked, None), address=nodes.address)) as sweep:
            for x in (1, 2):
                wait_for(marks / f"at_{x}", sweep)
            nodes.second.terminate()
            nodes.second.wait(60)
            (marks / "go").touch()
            said, _ = sweep.communicate(timeout=300)
        [found] = json.loads(said)
        assert sorted(answer["y"] for _, answer, *_ in found) == [1, 2]
    # The same objective in this process gives the same, but for the clock.
    from tests.scale.asked import ToyObjective

    whole = objective_of("tiny", load_params(project.params), project)
    values = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    objective = ToyObjective(**values, marks=marks)
    for cell, file in zip(cells_of(whole.board), (wide, narrow), strict=True):
        record = read_record(file, whole.key(cell, "code"))
        assert record is not None
        assert timeless(record.result) == timeless(objective(cell))


def timeless(result: Any) -> dict[str, Any]:
    return result.model_dump(exclude={"variants": {name: {"latency"} for name in result.variants}})

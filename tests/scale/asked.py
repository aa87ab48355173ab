"""What the tests of sweeps ask of processes of a cluster, which import it by its name."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import BaseSampler

from pipelines.scale.sweeps import tell_step
from pipelines.search.cells import Cell, CellResult
from pipelines.search.objective import Objective
from tests.tiny_board import with_toy


def square(question: dict[str, Any]) -> dict[str, object]:
    if question["x"] == 3:
        raise ValueError("no three,\nplease")
    threads = [os.environ[name] for name in ("FIELDLENS_WORKERS", "OMP_NUM_THREADS")]
    return {"y": question["x"] ** 2, "process": os.getpid(), "threads": threads}


def climb(question: dict[str, Any]) -> dict[str, object]:
    for step in range(1, 11):
        tell_step(step, {"height": float(question["x"] * step)})
    return {"height": 10.0 * question["x"]}


def hill(question: dict[str, Any]) -> dict[str, object]:
    """With an edge beyond 4."""
    return {"reward": float("nan") if question["x"] > 4 else -((question["x"] - 4.0) ** 2)}


class OneFurther(BaseSampler):
    """Asks for one more than the best so far."""

    def infer_relative_search_space(self, *_: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, *_: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, *_: Any) -> int:
        return study.best_params["x"] + 1


def dies(question: dict[str, Any]) -> dict[str, object]:
    """As the kernel ends a process that wants too much memory."""
    marks = Path(question["marks"])
    if question["x"] == "always" or (question["x"] == "once" and not (marks / "died").exists()):
        (marks / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"y": 1}


def waits(question: dict[str, Any]) -> dict[str, object]:
    """Until it may end."""
    marks = Path(question["marks"])
    (marks / f"at_{question['x']}").touch()
    _wait_for(marks / "go")
    return {"y": question["x"]}


def _wait_for(file: Path) -> None:
    until = time.monotonic() + 600
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.05)


@dataclass(frozen=True)
class ToyObjective(Objective):
    """Of the toy, which only processes that import it know; the narrow cell waits for a sign.

    Attributes:
        marks: a folder in which each cell that begins leaves a line.
    """

    marks: Path

    def __call__(self, cell: Cell, observer: Any = None) -> CellResult:
        with_toy(pytest.MonkeyPatch(), self.marks / "weights")
        with (self.marks / "begun").open("a") as stream:
            stream.write(f"{cell.width}\n")
        if cell.width == 0.5:
            _wait_for(self.marks / "go")
        return Objective.__call__(self, cell, observer)

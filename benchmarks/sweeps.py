"""What a trial of Ray Tune costs beside a plain loop, where processes stay and where they do not.

Each of twelve trials imports what a cell of a board imports, which a process pays once, and then
works for a moment. Needs the extra scale:

    python benchmarks/sweeps.py
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from report import header, make_parser, run, say, table

from pipelines.scale.cluster import joined
from pipelines.scale.sweeps import sweep


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--trials", type=int, default=12, help="of each row (12)")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time (2)")
    parser.add_argument("--seconds", type=float, default=0.25, help="that a trial works (0.25)")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print the seconds of each way."""
    header("A trial's overhead on Ray Tune")
    questions: list[dict[str, object]] = [{"s": arguments.seconds}] * arguments.trials
    say(
        f"{arguments.trials} trials of {arguments.seconds:g} s of the processor; Ray with "
        f"{arguments.workers} workers on this machine.",
        "",
    )
    rows: list[tuple[str, Callable[[], object]]] = [
        ("a loop in this process", lambda: [tiny_cell(dict(each)) for each in questions])
    ]
    start = time.perf_counter()
    with joined(arguments.workers, None) as cluster:
        init_s = time.perf_counter() - start
        tune = importlib.import_module("ray.tune")
        ask = partial(sweep, tiny_cell, questions, cluster, done=lambda trial: None)
        rows += [
            ("Ray, processes stay (`reuse_actors=True`)", ask),
            ("Ray, a process a trial", partial(_without_reuse, tune, ask)),
        ]
        found = [(title, _seconds(call)) for title, call in rows]
    table(
        ["", "s", "s a trial"],
        [(title, f"{s:.1f}", f"{s / arguments.trials:.2f}") for title, s in found],
    )
    say(f"Ray's own start, once: {init_s:.1f} s.")


def tiny_cell(question: dict[str, Any]) -> dict[str, object]:
    """The imports of a cell, and some work."""
    importlib.import_module("pipelines.search.objective")
    until, n_rounds = time.process_time() + float(question["s"]), 0
    while time.process_time() < until:
        n_rounds += 1
    return {"rounds": n_rounds}


def _without_reuse(tune: Any, ask: Callable[[], object]) -> None:
    kept = tune.TuneConfig
    tune.TuneConfig = lambda **asked: kept(**{**asked, "reuse_actors": False})
    try:
        ask()
    finally:
        tune.TuneConfig = kept


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())

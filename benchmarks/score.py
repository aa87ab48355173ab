"""Pictures a second of `fieldlens score`: a plain loop, one worker and two, and Ray where it is.

The ways take turns, so that a machine that becomes slower meanwhile slows all of them. "Whole" is
from the list of names to the joined file, the start of processes or of a cluster included; a plain
loop over the predictor, with a list of answers at its end, is what they stand beside. "Running"
leaves out what comes before each worker's first part, as a million pictures do. The names are
repeated until they are enough; each is read and decoded each time, from the cache of the disk.
Needs a model, and a folder of its pictures:

    python benchmarks/score.py --root .real --task tomato_leaf --source pictures --images 10000
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from report import header, make_parser, run, say, table

from pipelines.commands.predict import find_bundle
from pipelines.paths import Paths
from pipelines.scale import on_ray
from pipelines.scale.inputs import Inputs, inputs_of
from pipelines.scale.scoring import Job, Part, join, parts_of, score_parts
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor

Engine = Callable[[Job, Sequence[Part], int], Iterator[Part]]


@dataclass(frozen=True, slots=True)
class Run:
    """Times of one way, s, and the machine's load before it.

    Attributes:
        cpu_s: of the processor, by this process and its children; not by Ray's, which are none.
    """

    whole_s: float
    cpu_s: float
    #: Pictures a second once all workers run.
    running: float
    load: float


def main() -> int:
    """Parse, score, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--source", required=True, help="a folder of pictures")
    parser.add_argument("--images", type=int, default=10_000, help="(10000)")
    parser.add_argument("--part", type=int, default=250, help="pictures a part (250)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of all ways (3)")
    parser.add_argument("--no-ray", action="store_true", help="also where Ray is installed")
    return run(measure, parser)


def measure(arguments: argparse.Namespace) -> None:
    """Take turns and print a line a way."""
    path = find_bundle(Paths(arguments.root.resolve()), arguments.task, None)
    job = Job(path, read_bundle(path).served.precision)
    files = [each.location for each in inputs_of(arguments.source)]
    names = list(itertools.islice(itertools.cycle(files), arguments.images))
    inputs = Inputs(names, "")
    header(f"Scoring `{arguments.task}`: pictures a second")
    say(f"{arguments.images:,} pictures, {len(files):,} files, in parts of {arguments.part}.", "")
    ways: dict[str, Callable[[], Run]] = {"plain loop": partial(_loop, job, inputs)}
    engines: dict[str, Engine] = {"": score_parts}
    if importlib.util.find_spec("ray") and not arguments.no_ray:
        engines["Ray, "] = partial(on_ray.score_parts, address=None)
    for name, engine in engines.items():
        for n in (1, 2):
            ways[f"{name}{n} worker{'s' * (n > 1)}"] = partial(
                _scored, engine, n, job, inputs, arguments.part
            )
    # What is read lies in the cache of the disk from here on.
    _loop(job, inputs[: len(files)])
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            runs[name].append(way())
    _print(runs, arguments.images)


def _loop(job: Job, inputs: Inputs) -> Run:
    load, start, cpu_s = os.getloadavg()[0], time.perf_counter(), _cpu_s()
    predictor = Predictor.load(job.bundle, job.precision)
    loaded = time.perf_counter()
    answers = [predictor.predict(Path(each.location)) for each in inputs]
    end = time.perf_counter()
    return Run(end - start, _cpu_s() - cpu_s, len(answers) / (end - loaded), load)


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _scored(engine: Engine, n: int, job: Job, inputs: Inputs, size: int) -> Run:
    load, cpu_s = os.getloadavg()[0], _cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        parts = parts_of(inputs, read_bundle(job.bundle), job, Path(folder), size)
        for _ in engine(job, parts, n):
            pass
        # When each was written: Ray tells of several at once.
        done = sorted(part.target.stat().st_mtime for part in parts)
        join(parts, Path(folder) / "answers.parquet", 0)
        whole_s = time.perf_counter() - start
    # One part a worker is its start.
    running = (len(parts) - n) * size / (done[-1] - done[n - 1])
    return Run(whole_s, _cpu_s() - cpu_s, running, load)


def _print(runs: dict[str, list[Run]], n_images: int) -> None:
    def told(name: str, of: Callable[[Run], float], digits: int = 0) -> str:
        return ", ".join(f"{of(run):.{digits}f}" for run in runs[name])

    def over(name: str, base: str, of: Callable[[Run], float]) -> str:
        pairs = zip(runs[name], runs[base], strict=True)
        return "" if name == base else ", ".join(f"{of(a) / of(b):.2f}" for a, b in pairs)

    def rate(which: Run) -> float:
        return n_images / which.whole_s

    rows = []
    for name in runs:
        one = name.replace("2 workers", "1 worker")
        rows.append(
            [
                name,
                told(name, rate),
                told(name, lambda run: run.running),
                over(name, one, rate),
                over(name, one, lambda run: run.running),
                over(name, "plain loop", rate),
                "" if "Ray" in name else told(name, lambda run: run.cpu_s / n_images * 1000, 2),
                told(name, lambda run: run.load, 1),
            ]
        )
    heads = ["way", "images/s, whole", "running", "2 over 1, whole", "running"]
    heads += ["over the loop, whole", "processor, ms a picture", "load before"]
    table(heads, rows)
    say("A figure a turn.")


if __name__ == "__main__":
    sys.exit(main())

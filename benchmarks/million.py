"""Scoring of a million pictures, by simulation: memory and rate as a curve over the run.

Real are the list (a Parquet file of names), the parts and their files, the processes, their joining
into one file, and --answered-images pictures, each of which is read, decoded and answered. Of the
million the answers are simulated: each worker decodes and answers each file once, and says the same
again whenever its name comes. So the first run shows the machinery alone, the second what it is
beside a model's work. Memory is resident memory, pages that processes share counted in each. Rates
are told by the wall and by the workers' processor time, which other work beside hardly changes; the
figure has the latter, over a twentieth of the run. Writes the samples as CSV, and the figure of
them, beside each other. Needs a model, and a folder of its pictures:

    python benchmarks/million.py --root .real --task tomato_leaf --source pictures --out million
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeAlias

import psutil
import pyarrow
import pyarrow.parquet
from memory import tree_bytes
from report import header, make_parser, run, table
from typing_extensions import override

from pipelines.atomic import write_bytes
from pipelines.commands.predict import find_bundle
from pipelines.paths import Paths
from pipelines.scale.inputs import Input, inputs_of
from pipelines.scale.scoring import Job, Row, Scorer, join, parts_of, score_parts
from pipelines.serving.bundle import read_bundle

_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at all processes.

    Attributes:
        phase: list, score or join.
        elapsed_s: since the command's begin.
        workers_cpu_s: of the processor, by the workers that are there.
    """

    run: str
    phase: str
    elapsed_s: float
    n_done: int
    driver_mb: float
    workers_mb: float
    workers_cpu_s: float


Samples: TypeAlias = list[Sample]


class Repeating(Scorer):
    """Decodes and answers a file once, and says the same of it from then on."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._said: dict[str, Row] = {}

    @override
    def row(self, each: Input) -> Row:
        if each.location not in self._said:
            self._said[each.location] = super().row(each)
        return {**self._said[each.location], "path": each.name}


class Watch:
    """Where a run is, for the thread that looks at it."""

    def __init__(self, name: str) -> None:
        self.name, self.phase, self.n_done = name, "list", 0
        self.samples: Samples = []
        self._start = time.perf_counter()

    def look(self) -> None:
        """One sample."""
        driver = psutil.Process()
        own, all_of = driver.memory_info().rss, tree_bytes(driver.pid)
        elapsed_s = round(time.perf_counter() - self._start, 2)
        sizes = (round(own / 2**20, 1), round((all_of - own) / 2**20, 1))
        cpu_s = 0.0
        for child in driver.children():
            # Each may end between the listing and the reading.
            with suppress(psutil.NoSuchProcess):
                used = child.cpu_times()
                cpu_s += used.user + used.system
        self.samples.append(
            Sample(self.name, self.phase, elapsed_s, self.n_done, *sizes, round(cpu_s, 2))
        )


@contextmanager
def watched(name: str) -> Iterator[Watch]:
    """Look each second while the block runs."""
    watch, done = Watch(name), threading.Event()

    def work() -> None:
        while not done.wait(_EVERY_S):
            watch.look()

    watch.look()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()
        watch.look()


def main() -> int:
    """Parse, score, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--source", required=True, help="a folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="PATH.csv and PATH.png are written")
    parser.add_argument("--images", type=int, default=1_000_000, help="simulated (1000000)")
    parser.add_argument("--answered-images", type=int, default=100_000, help="(100000)")
    parser.add_argument("--part", type=int, default=500, help="pictures a part (500)")
    parser.add_argument("--workers", type=int, default=2, help="(2)")
    return run(measure, parser)


def measure(arguments: argparse.Namespace) -> None:
    """Both runs, a line each, the samples and the figure."""
    header(f"A million pictures: `{arguments.task}`")
    runs: list[Samples] = []
    rows = []
    for name, n, scorer in (
        ("answers repeated", arguments.images, Repeating),
        ("each answered", arguments.answered_images, Scorer),
    ):
        samples, n_bytes = scored(arguments, name, n, scorer)
        runs.append(samples)
        rows.append(_row(name, n, samples, n_bytes))
    heads = ["run", "pictures", "listed, s", "scored, s", "images/s", "processor, ms a picture"]
    heads += ["joined, s", "driver with the list, MiB", "all after a tenth, MiB", "all at the end"]
    table([*heads, "driver after the join", "answers.parquet, MB"], rows)
    flat = [asdict(sample) for sample in itertools.chain(*runs)]
    with arguments.out.with_suffix(".csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Sample)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)
    write_bytes(arguments.out.with_suffix(".png"), figure(runs))


def scored(
    arguments: argparse.Namespace, name: str, n: int, scorer: type[Scorer]
) -> tuple[Samples, int]:
    """What `fieldlens score` does, watched; the samples, and the bytes of the answers' file."""
    path = find_bundle(Paths(arguments.root.resolve()), arguments.task, None)
    bundle = read_bundle(path)
    job = Job(path, bundle.served.precision)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_list(folder / "names.parquet", arguments.source, n)
        with watched(name) as watch:
            inputs = inputs_of(str(folder / "names.parquet"))
            parts = parts_of(inputs, bundle, job, folder / "parts", arguments.part)
            (folder / "parts").mkdir()
            watch.phase = "score"
            for part in score_parts(job, parts, arguments.workers, scorer):
                watch.n_done += len(part.inputs)
            watch.look()
            watch.phase = "join"
            join(parts, folder / "answers.parquet", 0)
        return watch.samples, (folder / "answers.parquet").stat().st_size


def _write_list(path: Path, source: str, n: int) -> None:
    files = [str(Path(each.location).resolve()) for each in inputs_of(source)]
    names = list(itertools.islice(itertools.cycle(files), n))
    pyarrow.parquet.write_table(pyarrow.table({"path": names}), path)


def _row(name: str, n: int, samples: Samples, n_bytes: int) -> list[str]:
    scoring = _at_work(samples)
    joining = next(sample for sample in samples if sample.phase == "join")
    tenth = next(sample for sample in scoring if sample.n_done >= n / 10)
    begin_s = [sample for sample in samples if sample.phase == "list"][-1].elapsed_s
    half = next(sample for sample in scoring if sample.n_done >= n / 2)
    steady = (scoring[-1].n_done - half.n_done, scoring[-1].workers_cpu_s - half.workers_cpu_s)
    return [
        name,
        f"{n:,}",
        f"{begin_s:.0f}",
        f"{joining.elapsed_s - begin_s:.0f}",
        f"{n / (joining.elapsed_s - begin_s):,.0f}",
        f"{steady[1] / steady[0] * 1000:.3f}",
        f"{samples[-1].elapsed_s - joining.elapsed_s:.1f}",
        f"{scoring[0].driver_mb:.0f}",
        f"{tenth.driver_mb + tenth.workers_mb:.0f}",
        f"{scoring[-1].driver_mb + scoring[-1].workers_mb:.0f}",
        f"{samples[-1].driver_mb:.0f}",
        f"{n_bytes / 1e6:.1f}",
    ]


def _at_work(samples: Samples) -> Samples:
    """Those of scoring, until the first worker has ended."""
    scoring = [sample for sample in samples if sample.phase == "score"]
    most = max(range(len(scoring)), key=lambda at: scoring[at].workers_cpu_s)
    return scoring[: most + 1]


def figure(runs: Sequence[Samples]) -> bytes:
    """Memory above and rate below, a column a run, over the pictures that are done."""
    from matplotlib.figure import Figure

    from pipelines.plots.figures import BLUE, GREY, ORANGE, png, style

    with style():
        made = Figure(figsize=(10, 6))
        grid = made.subplots(2, len(runs), sharex="col", squeeze=False)
        for (memory, rate), samples in zip(grid.T, runs, strict=True):
            scoring = _at_work(samples)
            done = [sample.n_done / 1000 for sample in scoring]
            driver = [sample.driver_mb for sample in scoring]
            total = [sample.driver_mb + sample.workers_mb for sample in scoring]
            memory.plot(done, total, color=BLUE, label="all processes")
            memory.plot(done, driver, color=ORANGE, ls="--", label="of which the driver")
            memory.set_ylim(0, 1.25 * max(total))
            memory.set_title(f"{scoring[-1].n_done:,} pictures, {samples[0].run}", fontsize=12)
            places, rates = _rates(scoring)
            rate.plot(places, rates, color=GREY)
            rate.set_ylim(0, 1.25 * max(rates))
            rate.set_xlabel("thousand pictures done")
        grid[0][0].set_ylabel("memory, MiB")
        grid[1][0].set_ylabel("images a second of processor")
        grid[0][0].legend(loc="lower right")
        return png(made)


def _rates(scoring: Samples) -> tuple[list[float], list[float]]:
    """Thousands done, and pictures a second of the workers' processors over a twentieth before."""
    places, rates = [], []
    window = scoring[-1].n_done / 20
    for at in scoring:
        before = [each for each in scoring if each.n_done <= at.n_done - window]
        if before:
            last = before[-1]
            places.append(at.n_done / 1000)
            rates.append((at.n_done - last.n_done) / (at.workers_cpu_s - last.workers_cpu_s))
    return places, rates


if __name__ == "__main__":
    sys.exit(main())

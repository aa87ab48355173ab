"""One process against several that share a training: pictures a second, and what sharing costs.

The task's own settings but for the side of the input, views and epochs; no refit. Started by
torchrun, with one or more processes. "Before": all that stands before the first epoch; of `cached`,
the export of the trunk and the pass through it. "Head" and "tail": their epochs, val included.
Times are of the wall, and of the processor, all processes together, which other work beside hardly
changes. Needs a prepared task, and its network's weights (FIELDLENS_WEIGHTS):

    torchrun --nproc-per-node 2 benchmarks/ranks.py --root .real --task fish_species --strategy full
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from report import make_parser, run, say

from pipelines.backbones.heads import Classifier
from pipelines.config.params import load_params
from pipelines.data.manifest import in_split
from pipelines.paths import Paths
from pipelines.training.fit import EpochLog
from pipelines.training.job import Data, Job, Observer, train
from pipelines.training.runtime import Runtime, this_process


class _Clock(Observer):
    """Wall and processor, s, at the first epoch's begin and at the end of each epoch."""

    def __init__(self) -> None:
        self.marks = [("start", time.perf_counter(), time.process_time())]
        self.losses: list[float] = []

    def begun(self, key: str, model: Classifier) -> None:
        self._mark("begun")

    def epoch(self, log: EpochLog, *, is_refit: bool) -> None:
        self._mark(log.phase)
        self.losses.append(log.train_loss)

    def _mark(self, what: str) -> None:
        self.marks.append((what, time.perf_counter(), time.process_time()))


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--strategy", choices=("cached", "full"), required=True)
    parser.add_argument("--image-px", type=int, default=96, help="(96)")
    parser.add_argument("--views", type=int, default=2, help="of cached (2)")
    parser.add_argument("--epochs", type=int, default=2, help="of each phase (2)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (1)")
    return run(measure, parser)


def measure(arguments: argparse.Namespace) -> None:
    """Train once, and print a line a part."""
    runtime = this_process(arguments.threads)
    paths = Paths(arguments.root.resolve())
    job = Job.of(load_params(paths.params), arguments.task)
    brief = {"epochs": arguments.epochs, "patience": 0}
    params = job.params.model_copy(
        update={
            "strategy": arguments.strategy,
            "image_px": arguments.image_px,
            "views": arguments.views,
            "refit": False,
            "head_phase": job.params.head_phase.model_copy(update=brief),
            "tail_phase": job.params.tail_phase.model_copy(update=brief),
        }
    )
    job = Job(job.task, job.domain, params, job.seed)
    data = Data.read(paths.task(arguments.task))
    with tempfile.TemporaryDirectory() as own:
        # One folder for all: activations are shared.
        scratch = Paths(Path(runtime.told(lambda: own)))
        clock = _Clock()
        train(job, data, paths=scratch, runtime=runtime, observer=clock)
    _print(runtime, clock, len(in_split(data.entries, "train")), arguments)


def _print(runtime: Runtime, clock: _Clock, n_images: int, arguments: argparse.Namespace) -> None:
    everyone = runtime.everyones([cpu for _, _, cpu in clock.marks])
    cpu_s = [sum(each) for each in zip(*everyone, strict=True)]
    wall_s = [wall for _, wall, _ in clock.marks]
    names = [name for name, _, _ in clock.marks]
    if not runtime.is_primary:
        return
    say(f"{arguments.task}, {arguments.strategy}, {runtime.world} processes, {n_images} images")
    for phase in ("begun", "head", "tail"):
        last = len(names) - 1 - names[::-1].index(phase)
        first = names.index(phase) - 1
        n_shown = n_images * (last - first)
        wall, cpu = wall_s[last] - wall_s[first], cpu_s[last] - cpu_s[first]
        name = "before" if phase == "begun" else phase
        say(f"{name}: {wall:.1f} s, {n_shown / wall:.0f} images/s; processor {cpu:.1f} s")
    say("train losses: " + ", ".join(f"{loss:.6f}" for loss in clock.losses))


if __name__ == "__main__":
    sys.exit(main())

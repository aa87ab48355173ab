"""How long `cached` and `full` train to the same test accuracy, on the same data and split.

One process: `cached` with the task's own params, then `full` with the same ones, epoch by epoch,
until its test accuracy is within --within of cached's or its time passes --max-ratio times
cached's, then `cached` once more, so that a machine that became slower meanwhile shows. Everything
from the manifest on is timed, checkpoints included; measuring the test split is not, and neither is
the export of the frozen trunk, which tasks share and which is named beside. Activations and
checkpoints go to a temporary folder, so `cached` starts cold. Not tracked by MLflow. Needs a
prepared task (`make repro`, or `make real` and --root .real):

    python benchmarks/training.py --root .real --task cats_dogs
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from report import header, make_parser, run, say, table

from pipelines.paths import Paths

if TYPE_CHECKING:
    from timed_fit import Trained


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="project or workspace")
    parser.add_argument("--task", required=True)
    parser.add_argument("--within", type=float, default=0.01, help="of test accuracy (0.01)")
    parser.add_argument("--max-ratio", type=float, default=12.0, help="when full is stopped (12)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores")
    parser.add_argument("--warm", action="store_true", help="reuse stored activations")
    parser.add_argument("--once", action="store_true", help="do not train cached again at the end")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Train both ways and print times, accuracies and their ratio."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import read_setting, train, use_threads

    use_threads(arguments.threads)
    setting = read_setting(Paths(arguments.root.resolve()), arguments.task, arguments.warm)
    header(f"Training `{setting.task}`: cached against full")
    n_images = {name: len(split.class_index) for name, split in setting.splits.items()}
    say(
        f"{setting.params.backbone}, {setting.params.image_px} px, {setting.params.views} views; "
        f"images: {', '.join(f'{name} {n}' for name, n in n_images.items())}; "
        f"{arguments.threads} threads in torch.",
        "",
    )
    trainings = [train(setting, "cached")]
    target = trainings[0].accuracy - arguments.within
    limit_s = arguments.max_ratio * trainings[0].elapsed_s
    full = train(setting, "full", target=target, limit_s=limit_s)
    trainings.append(full)
    if not arguments.once:
        trainings.append(train(setting, "cached", is_measured=False))
    show(trainings, full, target)


def show(trainings: Sequence[Trained], full: Trained, target: float) -> None:
    """Print the tables and the ratio."""
    table(
        ["strategy", "s", "s before the first epoch", "epochs", "test accuracy"],
        [
            [
                each.strategy,
                f"{each.elapsed_s:.1f}",
                f"{each.before_s:.1f}",
                str(each.n_epochs),
                f"{each.accuracy:.4f}",
            ]
            for each in trainings
        ],
    )
    cached = [each for each in trainings if each.strategy == "cached"]
    cached_s = statistics.mean(each.elapsed_s for each in cached)
    export_s = cached[0].export_s
    say(
        f"Full over cached, to a test accuracy of {target:.4f}: "
        f"**{verdict(full, cached_s, target)}** (cached: {cached_s:.1f} s, the mean of "
        f"{len(cached)}, all its epochs)  ",
    )
    first_s = cached[0].first_within(target)
    if first_s is not None:
        say(
            f"Both to their first epoch there: {verdict(full, first_s, target)} ({first_s:.1f} s)  "
        )
    if export_s:
        say(
            f"Export of the trunk, once for all tasks, not counted: {export_s:.1f} s; with it "
            f"{verdict(full, cached_s + export_s, target)}"
        )
    else:
        say("Export of the trunk: not counted; it lay in the cache from before.")
    say("", "Test accuracy by epoch:", "")
    table(
        ["strategy", "epoch", "phase", "s", "test accuracy"],
        [
            [
                each.strategy,
                str(epoch.number),
                epoch.phase,
                f"{epoch.elapsed_s:.1f}",
                f"{epoch.accuracy:.4f}",
            ]
            for each in trainings
            for epoch in each.epochs
        ],
    )


def verdict(full: Trained, cached_s: float, target: float) -> str:
    """How many times as long the ordinary loop took, and whether it arrived."""
    if full.first_within(target) is not None:
        # It was ended there, after that epoch's checkpoint.
        return f"{full.elapsed_s / cached_s:.1f}"
    end = "stopped" if full.is_stopped else "all epochs, not reached"
    return f">= {full.elapsed_s / cached_s:.1f}, {end}"


if __name__ == "__main__":
    sys.exit(main())

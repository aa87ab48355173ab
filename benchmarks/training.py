"""How long `cached` and `full` take, and how good they get, on the same data and split.

One process: `cached` with the task's own params to its end; then `full`, the ordinary fine-tuning
of every layer from the first step, for --epochs epochs, or to the end of the first by which
--max-ratio times cached's time has passed; then `cached` once more, so that a machine that became
slower meanwhile shows. The test accuracy is measured after each epoch, so two ratios are given: to
the end of both, which is what somebody waits who does not look at the test split, and to the first
epoch of `full` that comes within --within of cached's accuracy, which nobody can know without
looking. Everything from the manifest on is timed, checkpoints included; measuring the test split is
not, and neither is the export of the frozen trunk, which tasks share and which is named beside.
Activations and checkpoints go to a temporary folder, so `cached` starts cold. Not tracked by
MLflow. Needs a prepared task (`make repro`, or `make real` and --root .real):

    python benchmarks/training.py --root .real --task cats_dogs
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from report import header, make_parser, run, say, table

from pipelines.paths import Paths

if TYPE_CHECKING:
    from timed_fit import Setting, Trained


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--within", type=float, default=0.01, help="of test accuracy (0.01)")
    parser.add_argument("--epochs", type=int, default=12, help="of full (12)")
    parser.add_argument("--max-ratio", type=float, default=30.0, help="when full is stopped (30)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores")
    parser.add_argument("--warm", action="store_true", help="reuse stored activations")
    parser.add_argument("--once", action="store_true", help="do not train cached again at the end")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Train both ways and print times, accuracies and their ratio."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import read_setting, train

    from pipelines.data.manifest import SPLITS, in_split
    from pipelines.training.runtime import this_process

    paths, runtime = Paths(arguments.root.resolve()), this_process(arguments.threads)
    # A refit is one more training by either strategy, and on other images than full's epochs see.
    setting = read_setting(paths, arguments.task, runtime, is_warm=arguments.warm).changed(
        refit=False
    )
    header(f"Training `{arguments.task}`: cached against full")
    n_images = {name: len(in_split(setting.data.entries, name)) for name in SPLITS}
    params = setting.job.params
    say(
        f"{params.backbone}, {params.image_px} px, {params.views} views; "
        f"images: {', '.join(f'{name} {n}' for name, n in n_images.items())}; "
        f"{arguments.threads} threads in torch.",
        "",
    )
    trainings = [train(setting, "cached")]
    target = trainings[0].accuracy - arguments.within
    limit_s = arguments.max_ratio * trainings[0].elapsed_s
    full = train(every_layer(setting, arguments.epochs), "full", limit_s=limit_s)
    trainings.append(full)
    if not arguments.once:
        trainings.append(train(setting, "cached", is_measured=False))
    show(trainings, full, target)


def every_layer(setting: Setting, n_epochs: int) -> Setting:
    """The same training without a phase of its own for the head."""
    params = setting.job.params
    return setting.changed(
        head_phase=params.head_phase.model_copy(update={"epochs": 0}),
        tail_phase=params.tail_phase.model_copy(update={"epochs": n_epochs}),
    )


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
        f"Full over cached ({cached_s:.1f} s, the mean of {len(cached)}), both to their end: "
        f"**{to_the_end(full, cached_s)}**  ",
        f"Full to its first epoch with a test accuracy of {target:.4f}, over cached to its end: "
        f"**{to_the_target(full, cached_s, target)}**  ",
    )
    if export_s:
        say(
            f"Export of the trunk, once for all tasks, not counted: {export_s:.1f} s; with it "
            f"{to_the_end(full, cached_s + export_s)} and "
            f"{to_the_target(full, cached_s + export_s, target)}"
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


def to_the_end(full: Trained, cached_s: float) -> str:
    """How many times as long the ordinary loop took, or at least would have taken."""
    return f"{'>= ' * full.is_stopped}{full.elapsed_s / cached_s:.1f}"


def to_the_target(full: Trained, cached_s: float, target: float) -> str:
    """How many times as long it took to an accuracy, if it came there."""
    first_s = full.first_within(target)
    if first_s is not None:
        return f"{first_s / cached_s:.1f}"
    return f"not reached after {full.elapsed_s / cached_s:.1f}"


if __name__ == "__main__":
    sys.exit(main())

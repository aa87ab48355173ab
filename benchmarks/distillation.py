"""What a teacher is worth to a smaller student, beside the same student without one.

The teacher is the task's backbone at 224 px; the student MobileNetV2 at half the width and 96 px.
Both learn from the same subset of the train split, with the task's own settings but for fewer
epochs and views and no refit, and the val split picks each epoch. The students of one seed differ
in nothing but the loss. Each answers the whole test split; the difference is taken on the same
images, over all seeds, with an interval by group that says nothing of other teachers or subsets.

Needs a prepared task (`make real`, and --root .real) and the student's weights (FIELDLENS_WEIGHTS):

    python benchmarks/distillation.py --root .real --task cats_dogs
    python benchmarks/distillation.py --root .real --task tomato_leaf --images 400 --seeds 1 2 3
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from report import header, make_parser, run, say, table

from pipelines.data.loaders import stratified_sample
from pipelines.data.manifest import Entry, in_split
from pipelines.metrics.classification import macro_f1
from pipelines.metrics.intervals import DIFFERENCE, by_mean, draw
from pipelines.paths import Paths

if TYPE_CHECKING:
    from timed_fit import Setting

_RESAMPLES = 2000
#: Of the sample that stands for the train split: the same for all.
_SAMPLE_SEED = 20261127


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--images", type=int, default=200, help="of the train split (200)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(1 2 3)")
    parser.add_argument("--temperature", type=float, default=4.0, help="(4)")
    parser.add_argument("--weights", type=float, nargs="+", default=[0.5, 0.9], help="(0.5 0.9)")
    parser.add_argument("--epochs", type=int, default=8, help="of head and tail, each (8)")
    parser.add_argument("--width", type=float, default=0.5, help="of the student (0.5)")
    parser.add_argument("--image-px", type=int, default=96, help="of the student (96)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a training, and the differences."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import read_setting

    from pipelines.training.runtime import this_process

    paths, runtime = Paths(arguments.root.resolve()), this_process(arguments.threads)
    setting = read_setting(paths, arguments.task, runtime)
    kept = subset(setting.data.entries, arguments.images)
    setting = quick(replace(setting, data=replace(setting.data, entries=kept)), arguments.epochs)
    test = in_split(kept, "test")
    truth = setting.data.split("test", setting.job).truth
    header(f"A teacher for `{arguments.task}`")
    sizes = {name: len(in_split(kept, name)) for name in ("train", "val", "test")}
    say(f"Images: {', '.join(f'{name} {n}' for name, n in sizes.items())}.", "")
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        taught_by = answers(setting, teacher)
        student = {"width": arguments.width, "image_px": arguments.image_px}
        ways: dict[str, dict[str, object]] = {"no teacher": {}}
        for weight in arguments.weights:
            ways[f"weight {weight:g}"] = {"distill": teaching(teacher, weight, arguments)}
        found = {
            name: [answers(seeded(setting.changed(**student, **way), s)) for s in arguments.seeds]
            for name, way in ways.items()
        }
    labels = setting.data.summary.labels
    rows = [["teacher", "", *figures(truth, taught_by, len(labels))]]
    rows += [
        [name, str(seed), *figures(truth, each, len(labels))]
        for name, of_seeds in found.items()
        for seed, each in zip(arguments.seeds, of_seeds, strict=True)
    ]
    table(["training", "seed", "test accuracy", "macro-F1"], rows)
    alone = right(truth, found.pop("no teacher"))
    draws = draw([entry.group for entry in test], _RESAMPLES, _SAMPLE_SEED)
    rows = []
    for name, of_seeds in found.items():
        gain = by_mean(draws, right(truth, of_seeds) - alone, DIFFERENCE)
        assert gain is not None
        rows.append([name, f"{gain.value:+.3f}", f"{gain.low:+.3f} to {gain.high:+.3f}"])
    table(["accuracy over no teacher, mean of seeds", "difference", "95 % interval"], rows)


def subset(entries: Sequence[Entry], n_images: int) -> list[Entry]:
    """All val and test images, and so many of the train split, as evenly over labels as it goes."""
    sample = stratified_sample(in_split(entries, "train"), n_images, _SAMPLE_SEED)
    return [*sample, *(entry for entry in entries if entry.split != "train")]


def quick(setting: Setting, n_epochs: int) -> Setting:
    """Few epochs and views, no refit, at any size of the train split."""
    params = setting.job.params
    return setting.changed(
        strategy="cached",
        refit=False,
        views=2,
        int8_views=0.0,
        cut=None,
        head_phase=params.head_phase.model_copy(update={"epochs": n_epochs}),
        tail_phase=params.tail_phase.model_copy(update={"epochs": n_epochs}),
    )


def seeded(setting: Setting, seed: int) -> Setting:
    """The same with another seed."""
    return replace(setting, job=replace(setting.job, seed=seed))


def teaching(teacher: Path, weight: float, arguments: argparse.Namespace) -> object:
    """Params that name the teacher."""
    from pipelines.config.train import DistillParams

    return DistillParams(teacher=(str(teacher),), temperature=arguments.temperature, weight=weight)


def answers(setting: Setting, out: Path | None = None) -> NDArray[np.int64]:
    """(n_test,) answers of a training."""
    from timed_fit import answers_of

    from pipelines.training import job as jobs

    done = jobs.train(setting.job, setting.data, out, paths=setting.paths, runtime=setting.runtime)
    return answers_of(done.model, setting.job.params, setting.data.split("test", setting.job))


def right(truth: NDArray[np.int64], of_seeds: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """(n_test,) the share of the seeds whose answer is right."""
    shares: NDArray[np.float64] = np.mean([truth == each for each in of_seeds], axis=0)
    return shares


def figures(truth: NDArray[np.int64], found: NDArray[np.int64], n_classes: int) -> list[str]:
    """Accuracy and macro-F1, as they are shown."""
    return [f"{(truth == found).mean():.3f}", f"{macro_f1(truth, found, n_classes):.3f}"]


if __name__ == "__main__":
    sys.exit(main())

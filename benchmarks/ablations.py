"""What each part of a MobileNet is worth: the whole network beside one that lacks it, from nothing.

Three folds by group: each is answered by networks that learned from the other two, where a fifth of
these, by group too, chooses the epoch. Fold k has seed k, of the first weights and of the order of
the images. So every network answers every image once, and those of one fold differ in nothing but
what is asked about: images, views (``train.views`` of each image, made once), seed, and the
settings of --recipe. Differences are taken on the same images, with intervals by group.

A training that is done is a line of --kept, and is not done again.

Needs prepared tasks (`make real`, and --root .real):

    python benchmarks/ablations.py --root .real --task fish_species tomato_leaf --kept kept.jsonl
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from folds import folds
from numpy.typing import NDArray
from report import ROOT, header, make_parser, run, say, table

from pipelines.atomic import write_bytes, write_text
from pipelines.config.recipe import laid_over
from pipelines.data.manifest import class_index_of, content_sha256, in_split
from pipelines.metrics.classification import macro_f1
from pipelines.metrics.intervals import DIFFERENCE, by_mean, draw
from pipelines.paths import Paths
from pipelines.serving.trust import Interval

if TYPE_CHECKING:
    from timed_fit import Setting

_FOLDS, _RESAMPLES = 3, 2000
#: Of the folds and the views: the same for all.
_SEED = 20261127


@dataclass(frozen=True, slots=True)
class Ablation:
    """A network that lacks something, and the one that has it.

    Attributes:
        what: it has in its place, for a person.
        sign: of its accuracy less that of the whole network, as the papers found it.
    """

    name: str
    whole: str
    what: str
    sign: int


#: Howard et al. 2017, table 4; Sandler et al. 2018, figure 6; Howard et al. 2019, section 6.
ABLATIONS = (
    Ablation("mobilenet_v1_full_convolutions", "mobilenet_v1", "V1, full convolutions", 1),
    Ablation("mobilenet_v2_relu6_bottlenecks", "mobilenet_v2", "V2, ReLU6 behind bottlenecks", -1),
    Ablation("mobilenet_v2_no_shortcuts", "mobilenet_v2", "V2, no shortcuts", -1),
    Ablation("mobilenet_v2_expanded_shortcuts", "mobilenet_v2", "V2, shortcuts of expansions", -1),
    Ablation("mobilenet_v3_large_relu", "mobilenet_v3_large", "V3, ReLU for hard-swish", -1),
    Ablation(
        "mobilenet_v3_large_no_squeeze", "mobilenet_v3_large", "V3, no squeeze-and-excite", -1
    ),
)
#: Narrow ones, by what the whole network is; V3 has none below 0.75.
_WIDTHS = {"mobilenet_v1": 0.25, "mobilenet_v2": 0.5, "mobilenet_v3_large": 0.75}
#: Of all networks, the whole ones first.
NETWORKS = {whole: width for whole, width in _WIDTHS.items()} | {
    each.name: _WIDTHS[each.whole] for each in ABLATIONS
}


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", nargs="+", required=True)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--kept", type=Path, help="a line a training; goes on from what it holds")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes/ablation.yaml")
    parser.add_argument("--epochs", type=int, help="the recipe's")
    parser.add_argument("--plot", type=Path, help="a figure of the differences, as PNG")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a network and a row an ablation, of each task."""
    kept = Kept(arguments.kept)
    header("Networks without what their papers gave them")
    found: dict[str, dict[str, Interval]] = {}
    for task in arguments.task:
        answered = train_all(task, arguments, kept)
        say(f"**{task}**: {answered.described}.", "")
        networks(answered)
        found[task] = differences(answered)
    if arguments.plot is not None:
        write_bytes(arguments.plot, figure(found))


# -- trainings ------------------------------------------------------------------------------------
@dataclass(slots=True)
class Kept:
    """Answers of the trainings that are done, and the file that holds them, a line each."""

    path: Path | None
    found: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.found[row["key"]] = row["answers"]

    def add(self, key: str, answers: list[int], said: Mapping[str, object]) -> None:
        """Keep a training's answers; what is said of it is for a person."""
        self.found[key] = answers
        if self.path is not None:
            before = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
            line = json.dumps({"key": key, **said, "answers": answers})
            write_text(self.path, f"{before}{line}\n")


@dataclass(frozen=True, slots=True)
class Answered:
    """All images of a task, in the order of the folds, and what each network says of them.

    Attributes:
        described: in a line.
        px: side of the networks' input.
        seeds: (n,) of the networks that answered an image.
        answers: (n,) by network.
    """

    described: str
    px: int
    n_classes: int
    groups: Sequence[str]
    truth: NDArray[np.int64]
    seeds: NDArray[np.int64]
    answers: Mapping[str, NDArray[np.int64]]

    def right(self, network: str) -> NDArray[np.float64]:
        """(n,) 1 where the network is right."""
        is_right: NDArray[np.bool_] = self.answers[network] == self.truth
        return is_right.astype(np.float64)

    def by_seed(self, values: NDArray[np.float64]) -> list[float]:
        """Mean of (n,) values, by seed."""
        return [float(values[self.seeds == seed].mean()) for seed in np.unique(self.seeds)]


def train_all(task: str, arguments: argparse.Namespace, kept: Kept) -> Answered:
    """Train what is not kept, all networks of a fold before the next."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import HeldData, read_setting

    from pipelines.training.runtime import this_process

    paths = Paths(arguments.root.resolve())
    setting = read_setting(paths, task, this_process(arguments.threads))
    params = laid_over(setting.job.params, arguments.recipe)
    if arguments.epochs is not None:
        phase = params.tail_phase.model_copy(update={"epochs": arguments.epochs})
        params = params.model_copy(update={"tail_phase": phase})
    held = HeldData(setting.data.files, setting.data.entries, setting.data.summary, _SEED)
    setting = replace(setting, data=held).changed(**dict(params))
    dealt = folds(held.entries, _FOLDS, _SEED)
    found: dict[str, list[int]] = {name: [] for name in arguments.networks}
    for seed, fold in enumerate(dealt, start=1):
        own = replace(setting, data=replace(held, entries=fold))
        own = replace(own, job=replace(own.job, seed=seed))
        for name in found:
            found[name] += answers(own.changed(backbone=name, width=NETWORKS[name]), kept)
    tests = [in_split(fold, "test") for fold in dealt]
    images = [entry for test in tests for entry in test]
    sizes = [len(in_split(dealt[0], name)) for name in ("train", "val", "test")]
    described = (
        f"{len(images)} images, {len({entry.group for entry in images})} groups; "
        f"{sizes[0]} train, {sizes[1]} val and {sizes[2]} answered in the first fold; "
        f"{params.tail_phase.epochs} epochs at {params.image_px} px"
    )
    return Answered(
        described,
        params.image_px,
        len(held.summary.labels),
        [entry.group for entry in images],
        class_index_of(images, held.summary.labels),
        np.repeat(np.arange(1, _FOLDS + 1), [len(test) for test in tests]),
        {name: np.array(each) for name, each in found.items()},
    )


def answers(setting: Setting, kept: Kept) -> list[int]:
    """To the test split, as kept or of a training."""
    from timed_fit import train

    job = setting.job
    asked = f"{job.task} {job.seed} {job.params.model_dump_json()}"
    asked += content_sha256(setting.data.entries)
    key = hashlib.sha256(asked.encode()).hexdigest()[:16]
    if key not in kept.found:
        trained = train(setting, "full", is_measured=False)
        said = {
            "task": job.task,
            "seed": job.seed,
            "network": job.params.backbone,
            "accuracy": round(trained.accuracy, 4),
            "seconds": round(trained.elapsed_s, 1),
        }
        kept.add(key, trained.answers.tolist(), said)
        sys.stderr.write(f"{said}\n")
    return kept.found[key]


# -- what came out --------------------------------------------------------------------------------
def networks(answered: Answered) -> None:
    """Print a row a network."""
    from pipelines.backbones.cost import cost
    from pipelines.backbones.spec import backbone

    draws = draw(answered.groups, _RESAMPLES, _SEED)
    rows = []
    for name, given in answered.answers.items():
        network = backbone(name, NETWORKS[name])
        counted = cost(network, answered.px, answered.n_classes)
        right = answered.right(name)
        rows.append(
            [
                network.title,
                f"{counted.multiply_adds / 1e6:.1f} M",
                f"{counted.parameters / 1e6:.2f} M",
                shown(by_mean(draws, right), ".3f"),
                f"{macro_f1(answered.truth, given, answered.n_classes):.3f}",
                ", ".join(f"{each:.3f}" for each in answered.by_seed(right)),
            ]
        )
    columns = ["network", "multiply-adds", "parameters", "accuracy", "macro-F1", "by seed"]
    table(columns, rows)


def differences(answered: Answered) -> dict[str, Interval]:
    """Print a row an ablation; gives the differences."""
    draws = draw(answered.groups, _RESAMPLES, _SEED)
    rows, found = [], {}
    for each in ABLATIONS:
        if not {each.name, each.whole} <= answered.answers.keys():
            continue
        gain = answered.right(each.name) - answered.right(each.whole)
        interval = by_mean(draws, gain, DIFFERENCE)
        assert interval is not None
        found[each.what] = interval
        seeds = ", ".join(f"{value:+.3f}" for value in answered.by_seed(gain))
        said = "better" if each.sign > 0 else "worse"
        rows.append([each.what, said, shown(interval, "+.3f"), seeds, verdict(interval, each.sign)])
    table(["ablation", "the papers", "accuracy less the whole's", "by seed", "holds"], rows)
    return found


def shown(interval: Interval | None, form: str) -> str:
    """An interval, as it is shown."""
    assert interval is not None
    return f"{interval.value:{form}} ({interval.low:{form}} to {interval.high:{form}})"


def verdict(found: Interval, sign: int) -> str:
    """Whether an interval says what the papers say: a sign."""
    if found.low <= 0 <= found.high:
        return "not told"
    return "yes" if found.value * sign > 0 else "no"


def figure(found: Mapping[str, Mapping[str, Interval]]) -> bytes:
    """A bar an ablation and task, with its interval; the papers' sign beside the name."""
    from matplotlib.figure import Figure

    from pipelines.plots.figures import BLUE, GREY, ORANGE, png, style

    signs = {each.what: each.sign for each in ABLATIONS}
    names = [what for what in signs if any(what in of_task for of_task in found.values())]
    height = 0.8 / max(len(found), 1)
    with style():
        made = Figure(figsize=(8, 1.2 + 0.75 * len(names)))
        axes = made.subplots()
        for row, (task, of_task) in enumerate(found.items()):
            places = [names.index(what) + (row + 0.5) * height - 0.4 for what in of_task]
            values = np.array([100 * each.value for each in of_task.values()])
            ends = np.array([[100 * each.low, 100 * each.high] for each in of_task.values()])
            colour = (BLUE, ORANGE, GREY)[row % 3]
            axes.barh(places, values, height * 0.9, color=colour, alpha=0.75, label=task)
            errors = np.abs(ends.T - values)
            axes.errorbar(values, places, xerr=errors, fmt="none", ecolor="black", capsize=3)
        labels = [f"{what} ({'+' if signs[what] > 0 else '-'})" for what in names]
        axes.set_yticks(range(len(names)), labels)
        axes.invert_yaxis()
        axes.axvline(0, color="black", lw=1)
        axes.set_xlabel("accuracy less that of the whole network, points")
        axes.legend(loc="best")
        return png(made)


if __name__ == "__main__":
    sys.exit(main())

"""How good a task's training is whatever the split, beside another training of the same images.

One test split of a small data set is luck: its groups may be easy or hard, and a few of them move
the figure by points. Here each image is answered once: folds by group, and of each fold's other
images a fifth, by group too, chooses the epoch. Same folds, same images, so that what differs is
the training; the float model answers. Two comparisons:

* ``plain``, of all images: the task's own settings and plain ones, which are head, then tail from
  block 14 at one rate, no views through the int8 trunk, no class weights, no label smoothing, no
  average of weights, and a refit where the task has one. Settings are never chosen by it: the test
  split of docs/RESULTS.md is in these folds.
* ``refit``, within train and val: the task's own settings, once as the fifth chose the epoch and
  once trained anew on that fifth too. Tasks get their ``train.refit`` by it (ADR 0019).

Needs a prepared task (`make real`, and --root .real):

    python benchmarks/folds.py --root .real --task tomato_leaf
    python benchmarks/folds.py --root .real --task fish_species --compare refit --folds 4 --seed 1
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from report import header, make_parser, run, say, table

from pipelines.data.manifest import SPLITS, Entry, Split, class_index_of, in_split
from pipelines.kinds.blind import folds_by_group
from pipelines.metrics.classification import accuracy, macro_f1
from pipelines.paths import Paths

#: Of a fold's other images, so that one of them can choose the epoch.
_INNER_FOLDS = 5


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Two ways to train, each by what it changes in the task's params, and on which images."""

    ways: Mapping[str, Mapping[str, object]]
    splits: Sequence[Split]


_COMPARISONS = {
    "plain": _Comparison(
        {
            "the task's own": {},
            "plain": {
                "cut": 14,
                "int8_views": 0.0,
                "layer_decay": 1.0,
                "balance": "none",
                "label_smoothing": 0.0,
                "ema_decay": 0.0,
            },
        },
        SPLITS,
    ),
    "refit": _Comparison({"refit": {"refit": True}, "chosen": {"refit": False}}, ("train", "val")),
}


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--compare", choices=list(_COMPARISONS), default="plain")
    parser.add_argument("--folds", type=int, default=5, help="of the images (5)")
    parser.add_argument("--seed", type=int, default=20261122, help="of the folds (20261122)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a fold, and the figures of all folds together."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import read_setting, train

    from pipelines.training.runtime import this_process

    paths, runtime = Paths(arguments.root.resolve()), this_process(arguments.threads)
    comparison = _COMPARISONS[arguments.compare]
    setting = read_setting(paths, arguments.task, runtime)
    data, labels = setting.data, setting.data.summary.labels
    entries = [entry for entry in data.entries if entry.split in comparison.splits]
    header(f"`{arguments.task}` in {arguments.folds} folds of {', '.join(comparison.splits)}")
    if data.summary.splits == "given":
        say("The publisher's split is left: folds are dealt anew, by group.", "")
    rows = []
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in comparison.ways}
    for number, fold in enumerate(folds(entries, arguments.folds, arguments.seed), start=1):
        dealt = replace(setting, data=replace(data, entries=fold))
        truth = class_index_of(in_split(fold, "test"), labels)
        for name, way in comparison.ways.items():
            answers = train(dealt.changed(**way), "cached", is_measured=False).answers
            found = accuracy(truth, answers), macro_f1(truth, answers, len(labels))
            scores[name].append(found)
            rows.append([str(number), name, str(len(truth)), *map(_figure, found)])
    table(["fold", "training", "images answered", "accuracy", "macro-F1"], rows)
    table(
        ["training", "accuracy, mean of the folds (least to most)", "macro-F1"],
        [
            [name, *(_spread(column) for column in zip(*found, strict=True))]
            for name, found in scores.items()
        ],
    )
    (first, ours), (second, theirs) = ((name, np.array(found)) for name, found in scores.items())
    better = (ours > theirs).sum(axis=0)
    gain = (ours - theirs).mean(axis=0)
    say(
        f"{first} is better than {second} in {better[0]} of {len(ours)} folds by accuracy, in "
        f"{better[1]} by macro-F1; by {_figure(gain[0])} and {_figure(gain[1])} on average.",
        "",
    )


def folds(entries: Sequence[Entry], n_folds: int, seed: int) -> list[list[Entry]]:
    """The images with other splits, once for each fold; each is in the test split of one fold."""
    result = []
    for rest, test in by_group(entries, n_folds, seed):
        train, val = by_group(rest, _INNER_FOLDS, seed)[0]
        parts: dict[Split, list[Entry]] = {"train": train, "val": val, "test": test}
        result.append(
            [replace(entry, split=name) for name, part in parts.items() for entry in part]
        )
    return result


def by_group(
    entries: Sequence[Entry], n_folds: int, seed: int
) -> list[tuple[list[Entry], list[Entry]]]:
    """What is learned from and what is answered in each fold."""
    labels = sorted({entry.label for entry in entries})
    groups = np.array([entry.group for entry in entries])
    found = folds_by_group(class_index_of(entries, labels), len(labels), groups, n_folds, seed)
    return [([entries[i] for i in learn], [entries[i] for i in answer]) for learn, answer in found]


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    sys.exit(main())

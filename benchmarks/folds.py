"""How good a task's training is whatever the split, beside one without any tuning.

One test split of a small data set is luck: its groups may be easy or hard, and a few of them move
the figure by points. Here every image is in the test split once: five folds by group, and of each
fold's other images a fifth, by group too, chooses the epoch (and is then trained on too, where the
task has ``refit``). Trained are the task's own settings
and plain ones: head, then tail from block 14 at one rate, no views through the int8 trunk, no class
weights, no label smoothing, no average of weights. Same folds, same images, same choice of the
epoch, so that what differs is the settings; the float model answers. Settings are never chosen
here: the test split of docs/RESULTS.md is in these folds. Needs a prepared task (`make real`, and
--root .real):

    python benchmarks/folds.py --root .real --task tomato_leaf
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from report import header, make_parser, run, say, table

from pipelines.config import TrainParams
from pipelines.data.manifest import Entry, Split, class_index_of, read_manifest
from pipelines.data.shortcuts import folds_by_group
from pipelines.evaluation.metrics import accuracy, macro_f1
from pipelines.paths import Paths

if TYPE_CHECKING:
    from timed_fit import Setting

_SEED = 20261122
_PLAIN_CUT = 14


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, default=Path(), help="project or workspace")
    parser.add_argument("--task", required=True)
    parser.add_argument("--folds", type=int, default=5, help="of the test split (5)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch; all cores")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a fold, and the figures of all folds together."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import setting_of, train

    from pipelines.training.start import set_up_torch

    set_up_torch(arguments.threads)
    paths = Paths(arguments.root.resolve())
    entries = read_manifest(paths.task(arguments.task).manifest)
    header(f"Settings of `{arguments.task}` in {arguments.folds} folds")
    rows = []
    scores: dict[str, list[tuple[float, float]]] = {}
    for number, fold in enumerate(folds(entries, arguments.folds), start=1):
        setting = setting_of(paths, arguments.task, fold, is_warm=False)
        truth = setting.splits["test"].class_index
        for name, each in (("the task's own", setting), ("plain", untuned(setting))):
            answers = train(each, "cached", is_measured=False).answers
            found = accuracy(truth, answers), macro_f1(truth, answers, len(setting.labels))
            scores.setdefault(name, []).append(found)
            n_train = len(setting.splits["train"].class_index)
            rows.append([str(number), name, str(n_train), str(len(truth)), *map(_figure, found)])
    table(["fold", "settings", "train images", "test images", "accuracy", "macro-F1"], rows)
    table(
        ["settings", "accuracy, mean of the folds (least to most)", "macro-F1"],
        [
            [name, *(_spread(column) for column in zip(*found, strict=True))]
            for name, found in scores.items()
        ],
    )
    own, plain = (np.array(found) for found in scores.values())
    better = (own > plain).sum(axis=0)
    say(
        f"The task's own settings are better in {better[0]} of {len(own)} folds by accuracy, in "
        f"{better[1]} by macro-F1; by {_figure((own - plain)[:, 0].mean())} and "
        f"{_figure((own - plain)[:, 1].mean())} on average.",
        "",
    )


def folds(entries: Sequence[Entry], n_folds: int) -> list[list[Entry]]:
    """The images with other splits, once for each fold; each is in the test split of one fold."""
    result = []
    for rest, test in by_group(entries, n_folds):
        train, val = by_group(rest, n_folds)[0]
        parts: dict[Split, list[Entry]] = {"train": train, "val": val, "test": test}
        result.append(
            [replace(entry, split=name) for name, part in parts.items() for entry in part]
        )
    return result


def by_group(entries: Sequence[Entry], n_folds: int) -> list[tuple[list[Entry], list[Entry]]]:
    """What is learned from and what is answered in each of the audit's folds."""
    labels = sorted({entry.label for entry in entries})
    groups = np.array([entry.group for entry in entries])
    found = folds_by_group(class_index_of(entries, labels), len(labels), groups, n_folds, _SEED)
    return [([entries[i] for i in learn], [entries[i] for i in answer]) for learn, answer in found]


def untuned(setting: Setting) -> Setting:
    """The same training with nothing chosen for the task."""
    plain: dict[str, object] = {
        "cut": _PLAIN_CUT,
        "int8_views": 0.0,
        "layer_decay": 1.0,
        "balance": "none",
        "label_smoothing": 0.0,
        "ema_decay": 0.0,
    }
    params: TrainParams = setting.params.model_copy(update=plain)
    return replace(setting, params=params)


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    sys.exit(main())

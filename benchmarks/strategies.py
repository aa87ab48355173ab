"""How much of a processor `cached` and `full` take for each network, and how good they get.

Both train on the same part of the train split, by groups; what is left of it is answered together
with the test split, so that a point of accuracy can be told. `cached` is the task's own settings;
`full` trains every layer from its first step, for --epochs epochs, the optimiser and the views'
settings being the same. No refit; each network has its own cut. Times are of the processor, all
threads of the process (`time.process_time`), from the manifest to the network that val has chosen,
so that other work beside hardly counts; answering is not in them. `cached` starts without
activations; the export of its trunk is named by itself. With --runs a finished training is a line
of that file, and is not run again by the same command. Needs a prepared task, and the networks'
weights (FIELDLENS_WEIGHTS):

    python benchmarks/strategies.py --root .real --task cats_dogs --runs runs.jsonl
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from report import header, make_parser, name_and_width, run, say, table

from pipelines.data.manifest import Entry, in_split
from pipelines.metrics.intervals import DIFFERENCE, by_mean, draw
from pipelines.paths import Paths
from pipelines.serving.bundle import title_of

if TYPE_CHECKING:
    from timed_fit import Setting

_LOG = logging.getLogger(__name__)
_NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v2:0.5",
    "mobilenet_v3_small",
    "efficientnet_lite0",
)
_STRATEGIES = ("cached", "full")
#: The train split is dealt into so many parts.
_PARTS = 10
#: Of the parts and the intervals, whatever the seed of the training.
_SEED = 20261127
_RESAMPLES = 2000


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--networks", nargs="+", default=_NETWORKS, help="NAME or NAME:WIDTH")
    parser.add_argument("--image-px", type=int, default=96, help="(96)")
    parser.add_argument("--images", type=int, default=300, help="to train on, about (300)")
    parser.add_argument("--epochs", type=int, default=12, help="of full (12)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="(1)")
    parser.add_argument("--runs", type=Path, help="a file that keeps finished trainings")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Run what has not been run, and print a row a network."""
    # Not before the environment is set: OpenMP reads it when torch is loaded.
    from timed_fit import read_setting

    from pipelines.training.runtime import this_process

    setting = read_setting(Paths(arguments.root.resolve()), arguments.task, this_process(1))
    entries = dealt(setting.data.entries, arguments.images)
    setting = replace(
        setting, data=replace(setting.data, entries=entries), clock=time.process_time
    ).changed(refit=False, image_px=arguments.image_px, cut=None)
    header(f"Training `{arguments.task}`: cached and full, by network")
    sizes = {name: len(in_split(entries, name)) for name in ("train", "val", "test")}
    params = setting.job.params
    say(
        f"{arguments.image_px} px. Images: {sizes['train']} to train on, {sizes['val']} that "
        f"choose, {sizes['test']} to answer. Cached: {params.head_phase.epochs} epochs of the "
        f"head, {params.tail_phase.epochs} of the tail, {params.views} views, "
        f"{params.int8_views:g} of them in int8. Full: {arguments.epochs} epochs of every layer. "
        f"Seeds: {', '.join(map(str, arguments.seeds))}.",
        "",
    )
    asked = in_split(entries, "test")
    truth = setting.data.split("test", setting.job).truth
    draws = draw([entry.group for entry in asked], _RESAMPLES, _SEED)
    rows = []
    for network in arguments.networks:
        name, width = name_and_width(network)
        chosen = setting.changed(backbone=name, width=width)
        found = {
            strategy: [
                trained(chosen, strategy, seed, arguments.epochs, arguments.runs)
                for seed in arguments.seeds
            ]
            for strategy in _STRATEGIES
        }
        right = {
            strategy: shares_right(truth, [each["answers"] for each in runs])
            for strategy, runs in found.items()
        }
        gain = by_mean(draws, right["cached"] - right["full"], DIFFERENCE)
        assert gain is not None
        cached_s, full_s = (
            sum(each["elapsed_s"] for each in found[strategy]) / len(arguments.seeds)
            for strategy in _STRATEGIES
        )
        # Exported once, by the first run, for all seeds and tasks.
        export_s = max(each["export_s"] for each in found["cached"])
        rows.append(
            [
                title_of(name, width),
                f"{cached_s:.1f}",
                f"{export_s:.1f}",
                f"{full_s:.1f}",
                f"**{full_s / cached_s:.1f}**",
                f"{full_s / (cached_s + export_s):.1f}",
                f"{right['cached'].mean():.3f}",
                f"{right['full'].mean():.3f}",
                f"{gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})",
            ]
        )
    table(
        [
            "network",
            "cached, s",
            "export of its trunk, s",
            "full, s",
            "full over cached",
            "export counted",
            "accuracy, cached",
            "full",
            "difference, 95 %",
        ],
        rows,
    )


def dealt(entries: Sequence[Entry], n_images: int) -> list[Entry]:
    """About so many images of the train split to train on; the rest of it joins the test split."""
    from folds import by_group

    train = in_split(entries, "train")
    parts = [part for _, part in by_group(train, _PARTS, _SEED)]
    n_kept = min(max(round(_PARTS * n_images / len(train)), 1), _PARTS)
    kept = {entry.path for part in parts[:n_kept] for entry in part}
    return [
        replace(entry, split="test") if entry.split == "train" and entry.path not in kept else entry
        for entry in entries
    ]


def trained(
    setting: Setting, strategy: str, seed: int, n_epochs: int, kept: Path
) -> dict[str, Any]:
    """What a training took and answered: read where it has been run, else run and written."""
    from timed_fit import train
    from training import every_layer

    params = setting.job.params
    key = {
        "task": setting.job.task,
        "network": title_of(params.backbone, params.width),
        "image_px": params.image_px,
        "images": len(in_split(setting.data.entries, "train")),
        "strategy": strategy,
        "epochs": n_epochs if strategy == "full" else None,
        "seed": seed,
    }
    lines = kept.read_text(encoding="utf-8").splitlines() if kept and kept.is_file() else []
    for found in map(json.loads, lines):
        if key.items() <= found.items():
            return dict(found)
    setting = replace(setting, job=replace(setting.job, seed=seed))
    if strategy == "full":
        setting = every_layer(setting, n_epochs)
    done = train(setting, strategy, is_measured=False)
    found = {
        **key,
        "export_s": round(done.export_s, 2),
        "before_s": round(done.before_s, 2),
        "elapsed_s": round(done.elapsed_s, 2),
        "answers": done.answers.tolist(),
    }
    if kept is not None:
        with kept.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(found) + "\n")
    _LOG.info(
        "%s %s seed %d: %.1f s, accuracy %.3f",
        key["network"],
        strategy,
        seed,
        done.elapsed_s,
        done.accuracy,
    )
    return found


def shares_right(
    truth: NDArray[np.int64], of_seeds: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """(n,) the share of the seeds whose answer is right."""
    shares: NDArray[np.float64] = (truth == np.array(of_seeds)).mean(axis=0)
    return shares


if __name__ == "__main__":
    sys.exit(main())

"""What each network comes to at int8: accuracy, the remedy that it took, and how fast it is.

Each is trained as `fieldlens board` trains a cell, exported by the same search of remedies, tested
on the whole test split and timed, its int8 file and its fp32 file in turns with the board's
reference. To take less time it learns from fewer images, without views through an int8 trunk and
without a refit. Trainings are kept below --root: a second call searches alone. Needs a prepared
task, and the networks' weights:

    python benchmarks/int8.py --root .real --task cats_dogs tomato_leaf
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from report import header, make_parser, run, say, table

from pipelines.errors import PipelineError
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pipelines.search.objective import Objective

#: Networks whose weights need no hub, and widths.
NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2:0.5",
    "mobilenet_v2:0.75",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large_minimal",
    "mobilenet_v3_large_075_coco",
    "efficientnet_lite0",
)


def main() -> int:
    """Parse, train, search, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", nargs="+", required=True)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME[:WIDTH]")
    parser.add_argument("--image-px", type=int, default=160, help="side of the input (160)")
    parser.add_argument("--images", type=int, default=600, help="of the train split (600)")
    parser.add_argument("--views", type=int, default=2, help="of each image (2)")
    parser.add_argument("--tail-epochs", type=int, default=5, help="at most (5)")
    parser.add_argument("--remedies", nargs="+", help="in the place of the task's own")
    parser.add_argument("--weights", default="imagenet", choices=["imagenet", "none"])
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a table with a row a task and network."""
    paths = Paths(arguments.root.resolve())
    header("int8 of every network")
    say(
        f"{arguments.image_px} px, {arguments.images} train images, {arguments.views} views, at "
        f"most {arguments.tail_epochs} epochs of the tail. The difference is int8 less fp32, in "
        f"pairs, 95 %; times as fast as fp32: one thread, in turns.",
        "",
    )
    columns = ["task", "network", "fp32", "int8", "difference", "remedy", "agreement on val"]
    table(
        [*columns, "MB, fp32 and int8", "times as fast", "bounds missed on val"],
        [
            cells
            for task in arguments.task
            for cells in rows(smaller(task, paths, arguments), arguments)
        ],
    )


def smaller(task: str, paths: Paths, arguments: argparse.Namespace) -> Objective:
    """The board's objective, of fewer images and a shorter training."""
    # Not at the top: they load torch.
    from pipelines.commands.board import objective_of
    from pipelines.config.params import load_params
    from pipelines.data.loaders import stratified_sample
    from pipelines.data.manifest import in_split

    whole = objective_of(task, load_params(paths.params), paths)
    entries = whole.data.entries
    kept = stratified_sample(in_split(entries, "train"), arguments.images, whole.seed)
    learned = {entry.path for entry in kept}
    fewer = [e for e in entries if e.split != "train" or e.path in learned]
    params, export = whole.train, whole.export
    tail = params.tail_phase
    epochs = min(tail.epochs, arguments.tail_epochs)
    asked = {
        "views": arguments.views,
        "int8_views": 0.0,
        "weights": arguments.weights,
        "tail_phase": tail.model_copy(update={"epochs": epochs}),
    }
    if arguments.remedies:
        export = export.model_copy(update={"remedies": tuple(arguments.remedies)})
    data = replace(whole.data, entries=fewer)
    return replace(whole, train=params.model_copy(update=asked), export=export, data=data)


def rows(objective: Objective, arguments: argparse.Namespace) -> Iterator[list[str]]:
    """The cells of one task."""
    from pipelines.search.board import gain
    from pipelines.search.cells import Cell
    from pipelines.search.choice import rows_of

    for network in arguments.networks:
        name, _, width = network.partition(":")
        cell = Cell(backbone=name, width=float(width or 1), image_px=arguments.image_px)
        title = cell.title.partition(",")[0]
        try:
            result = objective(cell)
        except PipelineError as err:
            yield [objective.task, title, *[""] * 7, f"failed: {err}"]
            continue
        fp32, int8 = rows_of([result])
        lost = gain(objective, int8, fp32)
        times = fp32.variant.latency.ms / int8.variant.latency.ms
        yield [
            objective.task,
            title,
            *(f"{100 * row.accuracy:.1f}" for row in (fp32, int8)),
            f"{100 * lost.value:+.1f} ({100 * lost.low:+.1f} to {100 * lost.high:+.1f})",
            result.int8_remedy,
            f"{result.int8_agreement:.1%}",
            f"{fp32.megabytes:.2f}, {int8.megabytes:.2f}",
            f"{times:.2f}",
            "; ".join(result.int8_missed) or "none",
        ]


if __name__ == "__main__":
    sys.exit(main())

"""How fast each released model answers: int8 and fp32 in ONNX Runtime, and eager torch.

One picture, one thread, the four in turns in one process, so that a busy machine is unfair to all
alike: a run at a time, which is how a single photo finds the machine, and ten in a row, which is
how a camera's frames do. All take the same uint8 pixels; decoding and resizing are not in it. Eager
torch runs twice: the float model as it was trained here, with its batch norms folded and channels
last, and the same backbone as its library makes it, which is what a script without Fieldlens would
run. Needs bundles (`make repro`, or `make real` and --root .real):

    python benchmarks/latency.py --root .real --runs 100
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from report import header, make_parser, run, say, table, tasks_with

from pipelines.export.latency import paired_ms, speedup
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.predictor import Predictor

if TYPE_CHECKING:
    from pipelines.backbones.heads import Classifier


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", nargs="+", help="all that have a bundle by default")
    parser.add_argument("--runs", type=int, default=100, help="counted runs of each (100)")
    parser.add_argument(
        "--in-a-row",
        type=int,
        nargs="+",
        default=[1, 10],
        help="runs of one before the next one's turn (1 10)",
    )
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a table with a row a task."""
    paths = Paths(arguments.root)
    tasks = tasks_with(paths, "bundle.json", arguments.task, at_least=1)
    header("Latency of the model alone")
    say(
        f"Batch 1, one thread, median of {arguments.runs} runs in turns; ratios are medians over "
        f"pairs of runs. In a row: runs of one before the next one's turn; with 1 each finds the "
        f"processor's caches full of the others' data.",
        "",
    )
    times = [f"{name} ms" for name in ("int8", "fp32", "torch, ours,", "torch")]
    ratios = ["fp32/int8", "torch, ours/int8", "torch/int8"]
    table(
        ["task", "backbone", "int8 bytes", "in a row", *times, *ratios],
        [
            cells
            for task in tasks
            for cells in rows(paths.task(task), arguments.runs, arguments.in_a_row)
        ],
    )


def rows(files: TaskPaths, n_runs: int, in_a_row: Sequence[int]) -> Iterator[list[str]]:
    """The cells of one task, once for each length of a turn."""
    int8, fp32 = (Predictor.load(files.bundle, precision) for precision in ("int8", "fp32"))
    side_px = int8.bundle.preprocess.crop_px
    pixels = np.random.default_rng(0).integers(
        0, 256, size=(1, side_px, side_px, 3), dtype=np.uint8
    )
    calls: dict[str, Callable[[], object]] = {
        "int8": partial(int8.run, pixels),
        "fp32": partial(fp32.run, pixels),
        "ours": eager(files, pixels),
        "torch": unfolded(files, pixels),
    }
    for n_in_a_row in in_a_row:
        ms = paired_ms(calls, n_runs, n_in_a_row)
        yield [
            files.task,
            int8.bundle.provenance.backbone,
            f"{int8.bundle.files['int8'].size_bytes:,}",
            str(n_in_a_row),
            *(f"{statistics.median(ms[name]):.2f}" for name in calls),
            *(f"{speedup(ms[name], ms['int8']):.2f}" for name in ("fp32", "ours", "torch")),
        ]


def eager(files: TaskPaths, pixels: NDArray[np.uint8]) -> Callable[[], object]:
    """The float model as training runs it: normalisation and memory format are the stage's own."""
    from pipelines.training.float_model import load_float_model

    _, model, _ = load_float_model(files.float_dir)
    return asking(model, pixels, is_channels_last=True)


def unfolded(files: TaskPaths, pixels: NDArray[np.uint8]) -> Callable[[], object]:
    """The backbone as its library makes it, with untrained weights, which take as long."""
    from pipelines.training.float_model import load_float_model

    meta, _, _ = load_float_model(files.float_dir)
    model = meta.model_copy(update={"is_folded": False}).build()
    return asking(model.eval(), pixels, is_channels_last=False)


def asking(
    model: Classifier, pixels: NDArray[np.uint8], *, is_channels_last: bool
) -> Callable[[], object]:
    """One answer of a network in eager torch, on one thread."""
    import torch

    from pipelines.backbones.spec import IMAGENET_MEAN, IMAGENET_STD
    from pipelines.training.job import normalise

    torch.set_num_threads(1)

    def answer() -> object:
        with torch.inference_mode():
            values = normalise(torch.from_numpy(pixels), IMAGENET_MEAN, IMAGENET_STD)
            return model(values if is_channels_last else values.contiguous())

    return answer


if __name__ == "__main__":
    sys.exit(main())

"""What the latencies of a search are worth: files that are written straight, two passes, and sums.

Networks are drawn at random from the default space and measured twice, as `fieldlens search`
measures them; what their blocks add up to is set beside it. With --bundle, MobileNetV2 written
straight is timed beside a shipped file of it.

    python benchmarks/search_latency.py
    python benchmarks/search_latency.py --bundle models/tomato_leaf/mobile --networks 0
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from report import header, make_parser, run, say, table
from scipy.stats import spearmanr

from pipelines.config.search import SearchParams
from pipelines.export.latency import against_reference
from pipelines.search.block_table import Scope
from pipelines.search.graphs import network_onnx
from pipelines.search.latency import Measured, ThisMachine, asking
from pipelines.search.space import Space
from pipelines.serving.sessions import Precision

N_CLASSES = 10
#: Sessions of each file: where a session's memory happens to lie moves its time by a per cent.
N_SESSIONS = 5


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--bundle", type=Path, help="folder of model_fp32.onnx and model_int8.onnx")
    parser.add_argument("--networks", type=int, default=60, help="at random (60)")
    parser.add_argument("--image-px", type=int, default=128, help="side of the reference (128)")
    parser.add_argument("--seed", type=int, default=1, help="of the networks (1)")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a table of files, and one of sums."""
    header("Latencies of a search")
    if arguments.bundle:
        table(
            ["precision", "written straight, ms", "shipped, ms", "ratio", "smallest, largest"],
            (fidelity(precision, arguments.bundle) for precision in get_args(Precision)),
        )
    if arguments.networks:
        say(
            f"{arguments.networks} networks, ratios to mobilenet_v2 at {arguments.image_px} px:", ""
        )
        table(
            [
                *("precision", "of the reference", "refused", "again: Spearman", "mean difference"),
                *("sum of blocks: Spearman", "mean difference", "largest"),
                *("offset, ms", "scale", "blocks", "processor s a network"),
            ],
            (sums(precision, arguments) for precision in get_args(Precision)),
        )


def fidelity(precision: Precision, bundle: Path) -> list[str]:
    """A row: MobileNetV2 written straight beside a shipped file."""
    shipped = (bundle / f"model_{precision}.onnx").read_bytes()
    px, n_classes = shape_of(shipped)
    scope = Scope(Space.of(SearchParams().space), px, n_classes, precision)
    own = network_onnx(scope.reference, n_classes, precision)
    calls = {
        f"{name}{number}": asking(data)
        for number in range(N_SESSIONS)
        for name, data in (("own", own), ("shipped", shipped))
    }
    found = against_reference(calls, asking(shipped))
    ms = {
        name: [each.ms for key, each in found.items() if key.startswith(name)]
        for name in ("own", "shipped")
    }
    ratios = np.array(ms["own"]) / np.array(ms["shipped"])
    return [
        precision,
        f"{np.median(ms['own']):.2f}",
        f"{np.median(ms['shipped']):.2f}",
        f"{np.median(ratios):.3f}",
        f"{ratios.min():.3f}, {ratios.max():.3f}",
    ]


def shape_of(model: bytes) -> tuple[int, int]:
    """Side of a file's pictures, and its classes."""
    import onnx

    graph = onnx.load_from_string(model).graph
    sides, classes = (
        value.type.tensor_type.shape.dim for value in (graph.input[0], graph.output[0])
    )
    return sides[1].dim_value, classes[1].dim_value


def sums(precision: Precision, arguments: argparse.Namespace) -> list[str]:
    """A row: what two measurements and the sum of blocks say of networks at random."""
    space = Space.of(SearchParams().space)
    rng = np.random.default_rng(arguments.seed)
    networks = [
        space.network({d.name: d.options[rng.integers(len(d.options))] for d in space.decisions})
        for _ in range(arguments.networks)
    ]
    scope = Scope(space, arguments.image_px, N_CLASSES, precision)
    with tempfile.TemporaryDirectory() as folder:
        source = ThisMachine(scope, Path(folder), SearchParams().table_gap)
        expected = source.sum
        start = time.process_time()
        first = source.measure(networks)
        seconds = (time.process_time() - start) / len(networks)
        second = source.measure(networks)
        n_blocks = len(source.table_path.read_text().splitlines()) - 1 - len(scope.anchors)
    by_sum = [expected.ms(each) / source.reference_ms for each in networks]
    low, high = (f"{how(ratios(first)):.2f}" for how in (np.min, np.max))
    return [
        precision,
        f"{low} to {high}",
        str(sum(not each.is_steady for each in first)),
        *agreement(ratios(first), ratios(second))[:2],
        *agreement(ratios(first), by_sum),
        f"{expected.offset:.2f}",
        f"{expected.scale:.2f}",
        str(n_blocks),
        f"{seconds:.2f}",
    ]


def ratios(found: Sequence[Measured]) -> list[float]:
    """To the reference."""
    return [each.ratio for each in found]


def agreement(a: Sequence[float], b: Sequence[float]) -> list[str]:
    """Rank correlation, mean and largest difference."""
    gaps = np.abs(np.array(a) / np.array(b) - 1)
    return [f"{spearmanr(a, b).statistic:.3f}", f"{gaps.mean():.1%}", f"{gaps.max():.1%}"]


if __name__ == "__main__":
    raise SystemExit(main())

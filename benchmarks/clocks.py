"""What a busy machine does to a ratio of latencies: by the clock on the wall, and by the thread's.

Some networks, by default three small ones, beside the board's reference, as `fieldlens board` times
them, while so many other processes want the processor. Networks are untrained; that takes as long.

    python benchmarks/clocks.py --busy 0 8
    python benchmarks/clocks.py --busy 0 --networks mobilenet_v1 nasnet_mobile --image-px 224
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from report import header, make_parser, name_and_width, run, say, table

from pipelines.backbones.cost import cost
from pipelines.backbones.spec import backbone
from pipelines.config.board import ReferenceParams
from pipelines.export.latency import against_reference
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.paths import Paths
from pipelines.search.objective import reference_onnx
from pipelines.serving.sessions import make_session

NETWORKS = ("mobilenet_v1", "mobilenet_v2:0.5", "mobilenet_v3_small")
CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--busy", type=int, nargs="+", default=[0, 8], help="other processes at work (0 8)"
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="NAME or NAME:WIDTH")
    parser.add_argument("--image-px", type=int, default=96, help="side of their input (96)")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a table with a row a load, clock and network."""
    header("Two clocks on a busy machine")
    say("Latency as a share of the reference's: 20th percentile, two passes that agree.", "")
    reference = asking(ReferenceParams())
    calls: dict[str, Callable[[], object]] = {}
    adds: dict[str, float] = {}
    for name, width in map(name_and_width, arguments.networks):
        network = backbone(name, width)
        adds[network.title] = cost(network, arguments.image_px).multiply_adds / 1e6
        calls[network.title] = asking(
            ReferenceParams(backbone=name, width=width, image_px=arguments.image_px)
        )
    rows: list[list[str]] = []
    for n_busy in arguments.busy:
        with at_work(n_busy):
            for which, clock in CLOCKS.items():
                for title, found in against_reference(calls, reference, clock=clock).items():
                    rows.append(
                        [
                            str(n_busy),
                            which,
                            title,
                            f"{adds[title]:.0f}",
                            f"{found.reference_ms:.2f}",
                            f"{found.ms:.3f}",
                            f"{found.ratio:.4f}",
                            f"{found.gap:.1%}",
                        ]
                    )
    table(
        [
            *("others", "clock", "network", "multiply-adds, M"),
            *("reference ms", "ms", "ratio", "passes differ"),
        ],
        rows,
    )


def asking(asked: ReferenceParams) -> Callable[[], object]:
    """One run of an untrained network, on noise."""
    session = make_session(reference_onnx(asked, Paths(Path()).references_dir))
    side = asked.image_px
    pixels = np.random.default_rng(0).integers(256, size=(1, side, side, 3)).astype(np.uint8)
    return partial(session.run, None, {INPUT_NAME: pixels})


@contextlib.contextmanager
def at_work(n_processes: int) -> Iterator[None]:
    """Processes that never wait."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(n_processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    sys.exit(main())

"""What a busy machine does to a ratio of latencies: by the clock on the wall, and by the thread's.

Three small networks beside the board's reference, as `fieldlens board` times them, while so many
other processes want the processor. Networks are untrained; that takes as long.

    python benchmarks/clocks.py --busy 0 8
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
from report import header, make_parser, run, say, table

from pipelines.config.board import ReferenceParams
from pipelines.export.latency import against_reference
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.paths import Paths
from pipelines.search.objective import reference_onnx
from pipelines.serving.sessions import make_session

NETWORKS = (
    ReferenceParams(backbone="mobilenet_v1", width=1.0, image_px=96),
    ReferenceParams(backbone="mobilenet_v2", width=0.5, image_px=96),
    ReferenceParams(backbone="mobilenet_v3_small", width=1.0, image_px=96),
)
CLOCKS = {"wall": time.perf_counter, "thread": time.thread_time}


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--busy", type=int, nargs="+", default=[0, 8], help="other processes at work (0 8)"
    )
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a table with a row a load, clock and network."""
    header("Two clocks on a busy machine")
    say("Latency as a share of the reference's: 20th percentile, two passes that agree.", "")
    reference = asking(ReferenceParams())
    calls = {asked.backbone: asking(asked) for asked in NETWORKS}
    rows = []
    for n_busy in arguments.busy:
        with at_work(n_busy):
            for name, clock in CLOCKS.items():
                for network, found in against_reference(calls, reference, clock=clock).items():
                    cells = [f"{found.reference_ms:.2f}", f"{found.ms:.3f}", f"{found.ratio:.4f}"]
                    rows.append([str(n_busy), name, network, *cells, f"{found.gap:.1%}"])
    table(["others", "clock", "network", "reference ms", "ms", "ratio", "passes differ"], rows)


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

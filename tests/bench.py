"""`make bench`: the figures of docs/LOG.md, measured again on this machine.

Decoding against a plain Pillow loop, and the served models against eager torch, in turns in one
run, so that a busy machine is unfair to all. Images: those under FIELDLENS_REAL_DATA if it is set,
else the painted ones in datasets/*/raw. Not collected by pytest; what it writes is Markdown.
"""

from __future__ import annotations

import hashlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.data.decoding import Refused, look_at_all
from pipelines.data.manifest import IMAGE_SUFFIXES
from pipelines.mobile.predictor import Predictor, processor_name
from pipelines.paths import Paths
from pipelines.quiet import go_quiet

ROOT = Path(__file__).resolve().parents[1]
MAX_IMAGES = 2000
ROUNDS = 5
RUNS_A_ROUND = 40


def main() -> int:
    go_quiet()
    paths = Paths(ROOT)
    say(f"Processor: {processor_name()}, {os.cpu_count()} cores.")
    real = os.environ.get("FIELDLENS_REAL_DATA")
    bench_decoding(Path(real) if real else paths.datasets_dir, "real" if real else "painted")
    bench_latency(paths)
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


# -- decoding -------------------------------------------------------------------------------------
def bench_decoding(folder: Path, kind: str) -> None:
    files = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and "contact" not in file.parts
    )
    files = files[:: max(1, -(-len(files) // MAX_IMAGES))]
    if not files:
        say("\nDecoding: no images; run `make repro`, or set FIELDLENS_REAL_DATA.")
        return
    ours, plain = [], []
    for _ in range(3):
        start = time.perf_counter()
        n_refused = sum(
            isinstance(seen, Refused)
            for seen in look_at_all(folder, files, min_side_px=16, n_workers=os.cpu_count() or 1)
        )
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        for file in files:
            plain_look(folder / file)
        plain.append(time.perf_counter() - start)
    rates = [len(files) / statistics.median(times) for times in (ours, plain)]
    say(f"\n## Decoding, {len(files)} {kind} images, {n_refused} refused, median of 3\n")
    say("| | images/s |\n|---|---|")
    say(f"| prepare | {rates[0]:.0f} |\n| plain Pillow loop | {rates[1]:.0f} |")
    say(f"| ratio | {rates[0] / rates[1]:.2f} |")


def plain_look(file: Path) -> tuple[str, bytes] | None:
    """What anybody would write: decode, hash the bytes, hash the picture."""
    try:
        data = file.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    grey = np.asarray(picture.resize((9, 8)).convert("L"), dtype=np.int16)
    return hashlib.sha256(data).hexdigest(), np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()


# -- latency --------------------------------------------------------------------------------------
def bench_latency(paths: Paths) -> None:
    tasks = [path.parents[1].name for path in sorted(paths.models_dir.glob("*/mobile/bundle.json"))]
    if not tasks:
        say("\nLatency: no bundles; run `make repro`.")
        return
    say(f"\n## Model alone, 1 thread, batch 1, median of {ROUNDS}x{RUNS_A_ROUND} in turns\n")
    say("| task | int8 bytes | int8 ms | fp32 ms | eager torch ms | fp32/int8 | torch/int8 |")
    say("|---|---|---|---|---|---|---|")
    for task in tasks:
        size_bytes, ms = latency_of(paths, task)
        cells = [
            task,
            f"{size_bytes:,}",
            *(f"{ms[name]:.2f}" for name in ("int8", "fp32", "torch")),
        ]
        cells += [f"{ms[name] / ms['int8']:.2f}" for name in ("fp32", "torch")]
        say(f"| {' | '.join(cells)} |")


def latency_of(paths: Paths, task: str) -> tuple[int, dict[str, float]]:
    """Bytes of the int8 file, and the time of one picture by form of the model, in ms."""
    int8, fp32 = (Predictor.load(paths.task(task).bundle, name) for name in ("int8", "fp32"))
    side_px = int8.bundle.preprocess.crop_px
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, size=(1, side_px, side_px, 3), dtype=np.uint8)
    ms = in_turns(
        {
            "int8": partial(int8.run, pixels),
            "fp32": partial(fp32.run, pixels),
            "torch": eager(paths, task, side_px),
        }
    )
    return int8.bundle.files["int8"].size_bytes, ms


def eager(paths: Paths, task: str, side_px: int) -> Callable[[], object]:
    """The float model in torch, on one thread, from normalised pixels."""
    import torch

    from pipelines.training.float_model import load_float_model

    torch.set_num_threads(1)
    _, model, _ = load_float_model(paths.task(task).float_dir)
    model.eval()
    tensor = torch.zeros(1, 3, side_px, side_px)

    def run() -> object:
        with torch.inference_mode():
            return model(tensor)

    return run


def in_turns(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median time of each, in ms; rounds alternate, after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(ROUNDS + 1):
        for name, run in runs.items():
            for _ in range(RUNS_A_ROUND):
                start = time.perf_counter()
                run()
                if round_number:
                    times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


if __name__ == "__main__":
    sys.exit(main())

"""How fast `prepare` looks at images, against a plain Pillow loop, and how much memory it takes.

Both ways run in turn in one process on the same files: read, SHA-256, decode, 64-bit perceptual
hash. The plain loop is what one would write first: one process, full decoding, the hash from the
full picture. Run from the project root:

    python benchmarks/prepare.py --images 1000 5000 --repeat 3
    python benchmarks/prepare.py --folder SOME/PHOTOS --repeat 3
"""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from pipelines.data.decoding import Refused, look_at_all, n_workers_of

_LOG = logging.getLogger("benchmark")
_PICTURES = 64
_SIDE_PX = (640, 480)
_SAMPLE_S = 0.02


def main() -> None:
    """Parse, paint, time, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000])
    parser.add_argument("--folder", type=Path, help="time on these files instead")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--workers", help="processes; all cores by default")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    n_workers = n_workers_of(arguments.workers)
    if arguments.peak_of is not None:
        _LOG.info("%d", peak_bytes(arguments.peak_of, files_in(arguments.peak_of), n_workers))
    elif arguments.folder is not None:
        compare(arguments.folder, n_workers, arguments.repeat)
    else:
        for n_images in arguments.images:
            with tempfile.TemporaryDirectory() as folder:
                paint(Path(folder), n_images)
                compare(Path(folder), n_workers, arguments.repeat)


def paint(folder: Path, n_images: int) -> None:
    """Fill a folder with photograph-like JPEGs: few pictures, each file with its own comment."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(_PICTURES):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(_SIDE_PX, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 6, (_SIDE_PX[1], _SIDE_PX[0], 1))
        levels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(levels).save(buffer, "JPEG", quality=85)
        pictures.append(buffer.getvalue())
    for index in range(n_images):
        data = pictures[index % _PICTURES]
        comment = b"\xff\xfe" + (10).to_bytes(2, "big") + index.to_bytes(8, "big")
        (folder / f"{index:06d}.jpg").write_bytes(data[:2] + comment + data[2:])


def files_in(folder: Path) -> list[str]:
    """Paths of all files that are no table, relative to the folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return sorted(
        file.relative_to(folder).as_posix()
        for file in files
        if file.suffix not in {".csv", ".json"}
    )


def plain_loop(folder: Path, paths: Sequence[str]) -> None:
    """One process, full decoding, the hash from the full picture."""
    waves = np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(32)[None, :] + 1) / 64)
    for path in paths:
        data = (folder / path).read_bytes()
        hashlib.sha256(data).hexdigest()
        with Image.open(io.BytesIO(data)) as image:
            grey = image.convert("RGB").convert("L").resize((32, 32), Image.Resampling.LANCZOS)
        block = waves @ np.asarray(grey, dtype=np.float64) @ waves.T
        np.packbits(block > np.median(block)).tobytes()


def own_pass(folder: Path, paths: Sequence[str], n_workers: int) -> None:
    """What `prepare` does."""
    n_refused = sum(
        isinstance(found, Refused)
        for found in look_at_all(folder, paths, min_side_px=1, n_workers=n_workers)
    )
    if n_refused:
        _LOG.info("%d files were refused: the two ways did not do the same work", n_refused)


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_ms(paths: Sequence[str], work: Callable[[], None]) -> float:
    """Processor time an image on one core, which other users of the machine do not stretch."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / len(paths) * 1000


def compare(folder: Path, n_workers: int, repeat: int) -> None:
    """Time both ways in turn, and print rates, the paired ratio and the peak memory."""
    paths = files_in(folder)
    plain_loop(folder, paths[:200])
    own_pass(folder, paths[:200], n_workers)
    plain, own = [], []
    for _ in range(repeat):
        plain.append(seconds(lambda: plain_loop(folder, paths)))
        own.append(seconds(lambda: own_pass(folder, paths, n_workers)))
    ratios = [one / other for one, other in zip(plain, own, strict=True)]
    sample = paths[:300]
    plain_cpu = cpu_ms(sample, lambda: plain_loop(folder, sample))
    own_cpu = cpu_ms(sample, lambda: own_pass(folder, sample, 1))
    command = [sys.executable, __file__, "--peak-of", str(folder), "--workers", str(n_workers)]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    _LOG.info(
        "%6d images, %d workers: plain %.0f/s, prepare %.0f/s, ratio %.2f (%.2f to %.2f), "
        "processor time %.2f and %.2f ms an image, peak memory of all processes %.0f MB",
        len(paths),
        n_workers,
        len(paths) / statistics.median(plain),
        len(paths) / statistics.median(own),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        plain_cpu,
        own_cpu,
        int(peak) / 1e6,
    )


def peak_bytes(folder: Path, paths: Sequence[str], n_workers: int) -> int:
    """Largest sum of resident memory of this process and its children; shared pages count twice."""
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        me = psutil.Process()
        while not done.wait(_SAMPLE_S):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            peak = max(peak, total)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        # Kept, as `prepare` keeps them.
        kept = list(look_at_all(folder, paths, min_side_px=1, n_workers=n_workers))
    finally:
        done.set()
        watcher.join()
    return peak if kept else 0


if __name__ == "__main__":
    main()

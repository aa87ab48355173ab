"""How fast `prepare` looks at images, against a plain Pillow loop, and how much memory it takes.

Both do the same for each file, in turns in one run: read, SHA-256, decode, 64-bit perceptual hash
and thumbnail by the same function. The plain loop is what one would write first: one thread, full
decoding, the hash from the full picture. `prepare` has a thread a core, or FIELDLENS_WORKERS.
Memory is that of another process which looks at all the images; the timing takes at most
--max-timed of them. Without --folder it paints photographs:

    python benchmarks/prepare.py --images 1000 5000 50000
    python benchmarks/prepare.py --folder SOME/PHOTOS
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from memory import peak_memory
from PIL import Image, ImageOps
from report import header, make_parser, run, say, table

from pipelines.data.decoding import Refused, examine_all
from pipelines.data.fingerprints import fingerprint
from pipelines.data.tree import IMAGE_SUFFIXES
from pipelines.data.workers import n_workers
from pipelines.errors import MissingDataError

_PICTURES = 64
_SIDE_PX = (640, 480)
_WARM_UP_IMAGES = 100
_SAMPLE_S = 0.05


def main() -> int:
    """Parse, paint, time, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000], help="painted (1000)")
    parser.add_argument("--folder", type=Path, help="these files instead")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of both in turns (3)")
    parser.add_argument("--max-timed", type=int, default=2000, help="images in a round (2000)")
    parser.add_argument("--peak-of", type=Path, help=argparse.SUPPRESS)
    return run(measure, parser)


def measure(arguments: argparse.Namespace) -> None:
    """Print a table with a row a number of images."""
    if arguments.peak_of is not None:
        say(str(peak_bytes(arguments.peak_of)))
        return
    header("Decoding in `prepare`")
    say(f"{n_workers()} threads, {arguments.repeat} rounds; rates and ratio are medians.", "")
    rows = []
    if arguments.folder is not None:
        rows.append(row(arguments.folder, arguments.repeat, arguments.max_timed))
    else:
        for n_images in arguments.images:
            with tempfile.TemporaryDirectory() as folder:
                paint(Path(folder), n_images)
                rows.append(row(Path(folder), arguments.repeat, arguments.max_timed))
    table(
        [
            "images",
            "timed",
            "refused",
            "plain Pillow loop, images/s",
            "prepare, images/s",
            "ratio (least to most)",
            "processor ms an image, plain and prepare",
            "peak MB",
        ],
        rows,
    )


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
    """Paths of all image files, relative to the folder.

    Raises:
        MissingDataError: if there is none.
    """
    files = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    )
    if not files:
        raise MissingDataError(f"{folder}: expected a folder with images, found none.")
    return files


def plain_loop(folder: Path, paths: Sequence[str]) -> int:
    """Look at each file in one thread, with full decoding; gives the number of refused ones."""
    n_refused = 0
    for path in paths:
        try:
            data = (folder / path).read_bytes()
            with Image.open(io.BytesIO(data)) as image:
                fingerprint(ImageOps.exif_transpose(image).convert("L"))
        except (OSError, ValueError, SyntaxError):
            n_refused += 1
            continue
        hashlib.sha256(data).hexdigest()
    return n_refused


def own_pass(folder: Path, paths: Sequence[str]) -> int:
    """What `prepare` does; gives the number of refused files."""
    examined = examine_all(folder, paths, min_side_px=1)
    return sum(isinstance(found, Refused) for found in examined)


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time of one call by a clock."""
    start = clock()
    work()
    return clock() - start


def row(folder: Path, repeat: int, max_timed: int) -> list[str]:
    """Cells of one folder: both ways in turns, then the peak memory of a pass over all."""
    files = files_in(folder)
    timed = files[:: -(-len(files) // max_timed)]
    few = timed[:_WARM_UP_IMAGES]
    ways = {
        "plain": lambda: plain_loop(folder, timed),
        "prepare": lambda: own_pass(folder, timed),
    }
    # Both once, so that neither pays for a cold file cache.
    plain_loop(folder, few)
    n_refused = own_pass(folder, timed)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            times[name].append(seconds(way, time.perf_counter))
    ratios = [plain / own for plain, own in zip(times["plain"], times["prepare"], strict=True)]
    # Processor time of all threads, which other users of the machine do not stretch.
    cpu_ms = [
        seconds(way, time.process_time) / len(few) * 1000
        for way in (lambda: plain_loop(folder, few), lambda: own_pass(folder, few))
    ]
    command = [sys.executable, __file__, "--peak-of", str(folder)]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [
        f"{len(files):,}",
        f"{len(timed):,}",
        str(n_refused),
        *(f"{len(timed) / statistics.median(times[name]):.0f}" for name in ways),
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{cpu_ms[0]:.2f}, {cpu_ms[1]:.2f}",
        f"{int(peak) / 1e6:.0f}",
    ]


def peak_bytes(folder: Path) -> int:
    """Peak memory of this process while it looks at a whole folder."""
    files = files_in(folder)
    with peak_memory(os.getpid(), _SAMPLE_S) as peak:
        # Kept, as `prepare` keeps them.
        kept = list(examine_all(folder, files, min_side_px=1))
    return peak.n_bytes if kept else 0


if __name__ == "__main__":
    sys.exit(main())

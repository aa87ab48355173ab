"""Seeded mutations of sound and hostile files through every door that bytes from outside take.

One process that runs on one core, with 1 GB of memory on top of what it starts with. Doors: the
image opener (`open_image` and `glance`), the archive reader, the readers of params.yaml, card.yaml
and bundle.json, and the vetting of ONNX files with the session after it. Whatever is neither taken
nor refused in one line of a `PipelineError` is a finding; so is an execution over 2 s of processor
time. A finding's bytes are kept below --keep.

    python benchmarks/fuzz.py --executions 200000
    python benchmarks/fuzz.py --executions 5000 --doors images archives
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from report import ROOT, header, make_parser, run, say, table

_SLOW_S = 2.0
#: Share of the executions by door; vetting is the quickest and YAML the slowest.
_SHARES = {"images": 50, "archives": 15, "params": 1, "cards": 2, "bundles": 12, "models": 20}
_SHARES |= {"dicom": 10, "heic": 10, "avif": 10, "jpeg2000": 10}
#: Larger files say nothing that smaller ones do not, and take longer.
_MAX_BYTES = 40_000
#: Numbers that programs are known to stumble over.
_INTERESTING = (0, 1, 127, 128, 255, 256, 32_767, 32_768, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
Door = Callable[[bytes], object]


def hostile() -> ModuleType:
    """The doors and the corpus, from tests/hostile."""
    path = ROOT / "tests" / "hostile" / "hostile_run.py"
    spec = importlib.util.spec_from_file_location("hostile_run", path)
    if spec is None or spec.loader is None:
        raise ImportError(str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules["hostile_run"] = module
    spec.loader.exec_module(module)
    return module


def mutant(seeds: list[bytes], draw: np.random.Generator) -> bytes:
    """One of the seeds with a few changes: bits, numbers, cuts, doublings, pieces of another."""
    data = bytearray(seeds[int(draw.integers(len(seeds)))])
    for _ in range(int(draw.integers(1, 6))):
        if not data:
            break
        at = int(draw.integers(len(data)))
        # Half of the changes fall on the first 100 bytes, where headers are.
        at = at % 100 if draw.integers(2) and len(data) > 100 else at
        match int(draw.integers(8)):
            case 0:
                data[at] ^= 1 << int(draw.integers(8))
            case 1:
                data[at] = int(draw.integers(256))
            case 2:
                number = _INTERESTING[int(draw.integers(len(_INTERESTING)))]
                size = int(draw.choice([1, 2, 4]))
                order = ("little", "big")[int(draw.integers(2))]
                data[at : at + size] = (number % 256**size).to_bytes(size, order)
            case 3:
                del data[at : at + int(draw.integers(1, 64))]
            case 4:
                data[at:at] = data[at : at + int(draw.integers(1, 64))] * int(draw.integers(1, 8))
            case 5:
                other = seeds[int(draw.integers(len(seeds)))]
                start = int(draw.integers(max(1, len(other))))
                piece = other[start : start + int(draw.integers(1, 64))]
                data[at : at + len(piece)] = piece
            case 6:
                data[at:at] = draw.bytes(int(draw.integers(1, 16)))
            case _:
                del data[max(at, 4) :]
    return bytes(data)


def seeds_of(kind: str, module: ModuleType, folder: Path) -> tuple[list[bytes], Door]:
    """What is mutated, and where it goes."""
    cases, door = module.cases(kind, folder)
    found = list(cases)
    # The smallest sound file is always small enough: without one nobody gets past the first check.
    least = min(len(data) for name, data in found if name.startswith("sound/"))
    small = {name: data for name, data in found if 0 < len(data) <= max(_MAX_BYTES, least)}
    sound = [data for name, data in small.items() if name.startswith("sound/")]
    seeds = sorted(set(small.values()))
    # Sound files reach further into a reader than broken ones: they are half of the seeds.
    return sound * (len(seeds) // len(sound)) + seeds, door


def emptied(folder: Path, door: Door) -> Door:
    """A door that leaves nothing behind in its folder."""

    def through(data: bytes) -> None:
        try:
            door(data)
        finally:
            for path in folder.glob("inside*"):
                shutil.rmtree(path, ignore_errors=True)

    return through


def measure(arguments: argparse.Namespace) -> None:
    """Print a row a door, and every finding."""
    header("Fuzzing")
    module = hostile()
    rows, findings = [], []
    with tempfile.TemporaryDirectory() as temporary:
        doors = {}
        for kind in arguments.doors:
            folder = Path(temporary) / kind
            folder.mkdir()
            if kind in {"bundles", "models"}:
                shutil.copytree(arguments.bundle, folder, dirs_exist_ok=True)
            doors[kind] = (*seeds_of(kind, module, folder), folder)
        module.limit_memory()
        # What libtiff and libpng say of each file, on stderr, is of no use here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        total = sum(_SHARES[kind] for kind in doors)
        for kind, (seeds, door, folder) in doors.items():
            n = -(-arguments.executions * _SHARES[kind] // total)
            row, found = fuzz(kind, seeds, emptied(folder, door), n, arguments.seed, module)
            rows.append(row)
            for message, data in found.items():
                name = f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
                findings.append(f"- {name}: {message}")
                if arguments.keep is not None:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / name).write_bytes(data)
            sys.stdout.flush()
    columns = ["door", "seeds", "executions", "taken", "refused", "findings"]
    table([*columns, "slowest ms", "s of processor"], rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    executions = sum(int(row[2].replace(",", "")) for row in rows)
    say(f"{executions:,} executions; peak memory of the process {peak:,.0f} MB.", "", *findings)


def fuzz(
    kind: str, seeds: list[bytes], door: Door, n: int, seed: int, module: ModuleType
) -> tuple[list[str], dict[str, bytes]]:
    """Mutate so many times; a row of the table, and one example of each kind of finding."""
    draw = np.random.default_rng([seed, len(kind), len(seeds)])
    outcomes: Counter[str] = Counter()
    findings: dict[str, bytes] = {}
    slowest_s = 0.0
    begin = time.process_time()
    for _ in range(n):
        data = mutant(seeds, draw)
        start = time.process_time()
        with contextlib.redirect_stdout(None):
            result, message = module.outcome(door, data)
        elapsed_s = time.process_time() - start
        slowest_s = max(slowest_s, elapsed_s)
        if elapsed_s > _SLOW_S:
            result, message = "slow", f"slower than {_SLOW_S} s"
        outcomes[result] += 1
        if result not in {"taken", "refused"}:
            findings.setdefault(f"{result}: {message[:120]}", data)
    n_findings = n - outcomes["taken"] - outcomes["refused"]
    row = [kind, f"{len(seeds):,}", f"{n:,}", f"{outcomes['taken']:,}", f"{outcomes['refused']:,}"]
    row += [str(n_findings), f"{1000 * slowest_s:,.0f}", f"{time.process_time() - begin:,.0f}"]
    return row, findings


def main() -> int:
    """Parse, run, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--executions", type=int, default=200_000, help="in all (200,000)")
    parser.add_argument("--doors", nargs="+", choices=_SHARES, default=list(_SHARES))
    parser.add_argument("--seed", type=int, default=1, help="of the mutations (1)")
    parser.add_argument("--keep", type=Path, help="folder for the bytes of findings")
    parser.add_argument(
        "--bundle",
        type=Path,
        default=ROOT / "models" / "cats_dogs" / "mobile",
        help="a folder with candidate.json and its model files (models/cats_dogs/mobile)",
    )
    return run(measure, parser)


if __name__ == "__main__":
    sys.exit(main())

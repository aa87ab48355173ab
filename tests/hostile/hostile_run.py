"""Put hostile files through the doors, in a process with a limit of memory; a JSON line each.

    python -m tests.hostile.hostile_run KIND FOLDER
    python -m tests.hostile.hostile_run KIND FOLDER MUTANTS    seeded changes of the files instead

The memory that the process may still take is 1 GB: what needs more is a MemoryError, which the
doors turn into a refusal, or the end of the process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.card import load_card
from pipelines.data.images import glance, open_image
from pipelines.errors import PipelineError
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import make_session
from pipelines.sources.archive import extract
from pipelines.sources.intake import Intake
from tests.hostile import hostile_files as files
from tests.hostile import hostile_formats as formats
from tests.hostile import hostile_images as images
from tests.hostile import hostile_truth as truth
from tests.hostile.changes import Named
from tests.image_files import encode
from tests.process_cost import forget_peak, memory

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 1_000_000_000
#: Larger seeds say nothing that smaller ones do not, and take longer.
MAX_SEED_BYTES = 40_000
#: Numbers that programs are known to stumble over.
INTERESTING = (0, 1, 127, 128, 255, 256, 32_767, 32_768, 65_535, 2**31 - 1, 2**31, 2**32 - 1)
Door = Callable[[bytes], object]


def image_doors(data: bytes) -> None:
    try:
        opened = open_image(data, name="a.jpg")
    finally:
        seen = glance(data, side_px=32, name="a.jpg")
    assert opened.rgb.mode == "RGB"
    stored = (opened.width_px, opened.height_px)
    assert opened.rgb.size in {stored, stored[::-1]}
    assert seen.grey.mode == "L"


def archive_door(folder: Path) -> Door:
    """Takes an archive into ``folder``/inside/raw, and looks for what landed elsewhere."""
    count = 0

    def door(data: bytes) -> None:
        nonlocal count
        count += 1
        place = folder / f"inside{count}"
        (place / "raw").mkdir(parents=True)
        archive = folder / "archive"
        archive.write_bytes(data)
        try:
            extract(archive, Intake(place / "raw", "task", max_bytes=400_000_000), "")
        finally:
            assert [path.name for path in place.iterdir()] == ["raw"], "a file outside the target"
            assert not list(folder.glob("evil*"))
            assert not any(path.is_symlink() for path in place.rglob("*"))
            shutil.rmtree(place)

    return door


def file_door(path: Path, read: Callable[[Path], object]) -> Door:
    """Writes a file, and reads it the way that the pipeline does."""
    path.parent.mkdir(parents=True, exist_ok=True)

    def door(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    return door


def bundle_door(folder: Path) -> Door:
    """Reads a bundle beside the model files of the sound one, and asks it once."""
    picture = encode(images.picture(), "PNG")

    def ask(path: Path) -> None:
        read_bundle(path)
        Predictor.load(path).predict(picture)

    return file_door(folder / "bundle.json", ask)


def cases(kind: str, folder: Path) -> tuple[Named, Door]:
    """The files of a kind, and the door that they go through."""
    match kind:
        case "images":
            return images.quick(), image_doors
        case "image-bombs":
            return images.slow(), image_doors
        case "formats":
            return formats.quick(), image_doors
        case "dicom" | "heic" | "avif" | "jpeg2000":
            return formats.quick(kind), image_doors
        case "format-bombs":
            return formats.slow(), image_doors
        case "archives":
            kinds = (files.broken_archives(), files.named_archives(), files.lying_archives())
            return itertools.chain(*kinds), archive_door(folder)
        case "archive-bombs":
            return files.archive_bombs(), archive_door(folder)
        case "cards":
            card = ROOT / "datasets/cats_dogs/card.yaml"
            door = file_door(folder / "cats_dogs/card.yaml", load_card)
            return files.yamls(card.read_text(encoding="utf-8")), door
        case "bundles":
            # `folder` holds a sound bundle.
            sound = (folder / "candidate.json").read_text(encoding="utf-8")
            return files.jsons(sound), bundle_door(folder)
        case "models":
            sound_model = (folder / "model_fp32.onnx").read_bytes()
            return files.models(sound_model), make_session
    return truth.door_of(kind, folder)


def mutants(named: list[tuple[str, bytes]], n: int) -> Named:
    """Changed files; each has a draw of its own, so that its number makes it again."""
    # The smallest sound file is always small enough: without one nobody gets past the first check.
    least = min(len(data) for name, data in named if name.startswith("sound/"))
    small = {name: data for name, data in named if 0 < len(data) <= max(MAX_SEED_BYTES, least)}
    sound = [data for name, data in small.items() if name.startswith("sound/")]
    seeds = sorted(set(small.values()))
    # Sound files reach further into a reader than broken ones: they are half of the seeds.
    seeds += sound * (len(seeds) // len(sound))
    for number in range(n):
        yield f"mutant/{number}", mutant(seeds, np.random.default_rng([1, number]))


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
                number = INTERESTING[int(draw.integers(len(INTERESTING)))]
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


def outcome(door: Door, data: bytes) -> tuple[str, str]:
    """What became of a file: taken, refused, or what the door should not have raised."""
    try:
        door(data)
    except PipelineError as err:
        lines = str(err).splitlines()
        return ("refused" if len(lines) == 1 else "not one line"), str(err)[:200]
    except (Exception, RecursionError) as err:  # noqa: BLE001 (the finding)
        return "raised", f"{type(err).__name__}: {err}"[:300]
    return "taken", ""


def limit_memory() -> None:
    """Let this process take `MEMORY_BYTES` on top of what it has."""
    size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = size * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(kind: str, folder: Path, n_mutants: int = 0) -> None:
    found, door = cases(kind, folder)
    # Made beforehand: making a bomb may take more than meeting it.
    named = list(found)
    tried = mutants(named, n_mutants) if n_mutants else iter(named)
    forget_peak()
    limit_memory()
    before = memory("VmRSS")
    for name, data in tried:
        sys.stdout.write(json.dumps({"begins": name}) + "\n")
        sys.stdout.flush()
        start = time.process_time()
        with contextlib.redirect_stdout(None):
            result, message = outcome(door, data)
        line = {"name": name, "result": result, "message": message}
        sys.stdout.write(json.dumps({**line, "cpu_s": time.process_time() - start}) + "\n")
    sys.stdout.write(json.dumps({"peak_bytes": memory("VmHWM") - before}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))

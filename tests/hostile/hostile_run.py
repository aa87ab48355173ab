"""Put hostile files through the doors, in a process with a limit of memory; a JSON line each.

    python hostile_run.py KIND FOLDER

The memory that the process may still take is 1 GB: what needs more is a MemoryError, which the
doors turn into a refusal, or the end of the process.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

from pipelines.card import load_card
from pipelines.config.params import load_params
from pipelines.data.images import glance, open_image
from pipelines.errors import PipelineError
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import make_session
from pipelines.sources.archive import extract
from pipelines.sources.intake import Intake

ROOT = Path(__file__).resolve().parents[2]
# What writes DICOM files is shared with the other tests.
sys.path.insert(0, str(ROOT))
MEMORY_BYTES = 1_000_000_000
Door = Callable[[bytes], object]


def load(name: str) -> ModuleType:
    """A module beside this one; tests are no package."""
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


images, files, formats = load("hostile_images"), load("hostile_files"), load("hostile_formats")


def image_doors(data: bytes) -> None:
    try:
        opened = open_image(data, name="a.jpg")
    finally:
        seen = glance(data, side_px=32, name="a.jpg")
    assert opened.rgb.mode == "RGB"
    assert opened.rgb.size in {
        (opened.width_px, opened.height_px),
        (opened.height_px, opened.width_px),
    }
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
    picture = images.encode(images.picture(), "PNG")

    def ask(path: Path) -> None:
        read_bundle(path)
        Predictor.load(path).predict(picture)

    return file_door(folder / "bundle.json", ask)


def cases(kind: str, folder: Path) -> tuple[Iterator[tuple[str, bytes]], Door]:
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
            return _all(
                files.broken_archives, files.named_archives, files.lying_archives
            ), archive_door(folder)
        case "archive-bombs":
            return files.archive_bombs(), archive_door(folder)
        case "params":
            sound = (ROOT / "params.yaml").read_text(encoding="utf-8")
            return files.yamls(sound), file_door(folder / "params.yaml", load_params)
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
    raise ValueError(kind)


def _all(*kinds: Callable[[], Iterator[tuple[str, bytes]]]) -> Iterator[tuple[str, bytes]]:
    for kind in kinds:
        yield from kind()


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


def main(kind: str, folder: Path) -> None:
    found, door = cases(kind, folder)
    # Made beforehand: making a bomb may take more than meeting it.
    named = list(found)
    # Forget the peak so far; proc_pid_clear_refs(5).
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    limit_memory()
    before = memory("VmRSS")
    for name, data in named:
        sys.stdout.write(json.dumps({"begins": name}) + "\n")
        sys.stdout.flush()
        start = time.process_time()
        result, message = outcome(door, data)
        line = {"name": name, "result": result, "message": message}
        sys.stdout.write(json.dumps({**line, "cpu_s": time.process_time() - start}) + "\n")
    sys.stdout.write(json.dumps({"peak_bytes": memory("VmHWM") - before}) + "\n")


def memory(key: str) -> int:
    """Bytes that this process holds (VmRSS), or has held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

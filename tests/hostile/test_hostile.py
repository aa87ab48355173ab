"""At least 500 hostile files through every door: no crash, no hang, no gigabyte, no stray file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipelines.data.images import open_image
from pipelines.data.tree import ALLOWED_FORMATS
from pipelines.errors import CorruptImageError
from pipelines.paths import Paths

#: Seconds of processor time for one file. Measured without other load: at most 1.3.
MAX_CPU_S = 2.0
#: At least so many files of each kind.
QUICK = {"archives": 300, "cards": 90, "bundles": 200, "models": 150, "images": 800}
QUICK |= {"formats": 4000}
QUICK |= {
    "coco": 300,
    "voc": 120,
    "yolo": 120,
    "names": 120,
    "masks": 120,
    "galleries": 150,
    "bundles-of-kinds": 600,
}


def results(kind: str, folder: Path, timeout_s: float, *n_mutants: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.hostile_run", kind, str(folder), *n_mutants],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=timeout_s,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.stderr[-500:])
    assert lines[-1]["peak_bytes"] < 1_000_000_000
    return [line for line in lines if "result" in line]


def check(found: list[dict]) -> None:
    assert [line for line in found if line["result"] not in {"taken", "refused"}] == []
    assert [line for line in found if line["cpu_s"] > MAX_CPU_S] == []


def folder_of(kind: str, tmp_path: Path, tiny_project: Paths) -> Path:
    is_of_bundle = kind in {"bundles", "models"}
    return tiny_project.task("tiny").mobile_dir if is_of_bundle else tmp_path


@pytest.mark.parametrize("kind", QUICK)
def test_small_files_are_taken_or_refused_in_one_line(kind, tmp_path, tiny_project):
    found = results(kind, folder_of(kind, tmp_path, tiny_project), 120)
    assert len(found) >= QUICK[kind]
    check(found)
    counts = {name: sum(line["result"] == name for line in found) for name in ("taken", "refused")}
    assert counts["refused"] > len(found) // 3, counts
    assert counts["taken"] > 0, "nothing that is sound was among them"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["image-bombs", "archive-bombs", "format-bombs"])
def test_bombs_cost_little(kind, tmp_path):
    found = results(kind, tmp_path, 800)
    assert len(found) >= 10
    check(found)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "n", [40, pytest.param(20_000, marks=pytest.mark.by_hand(reason="an hour a kind"))]
)
@pytest.mark.parametrize(
    "kind",
    [
        *("images", "archives", "cards", "bundles", "models"),
        *("dicom", "heic", "avif", "jpeg2000"),
        *("coco", "voc", "yolo", "names", "masks", "galleries"),
        "bundles-of-kinds",
    ],
)
def test_mutants_are_taken_or_refused_in_one_line(kind, n, tmp_path, tiny_project):
    found = results(kind, folder_of(kind, tmp_path, tiny_project), 7000, str(n))
    assert len(found) == n
    check(found)


def test_decoders_that_are_not_needed_cannot_be_reached():
    usual = {"JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"}
    assert set(ALLOWED_FORMATS) == usual | {"AVIF", "JPEG2000"}
    # With every plugin of Pillow loaded, as some other library may do.
    Image.init()
    assert {"EPS", "FITS", "PSD", "ICO", "PPM"} <= set(Image.OPEN)
    for data in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        b"SIMPLE  =                    T".ljust(2880),
        b"P6 1 1 255\n\0\0\0",
    ):
        with pytest.raises(CorruptImageError, match="not an image of a known format"):
            open_image(data)

"""Tasks of hundreds of classes: `evaluate` and `report` stay within time, memory and pixels."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from pipelines.data.manifest import Entry, content_sha256, write_manifest
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import Artefact, read_bundle
from tests.conftest import SIDE_PX, mean_colour_net

#: Runs `evaluate` and prints the peak of its memory in kB.
EVALUATE = """
import sys
from pathlib import Path
from pipelines.config.evaluate import EvaluateParams
from pipelines.paths import Paths
from pipelines.stages import evaluate
params = EvaluateParams(calibration_bins=10, resamples=2000)
evaluate.run("tiny", params, 1, Paths(Path(sys.argv[1])))
# Not by getrusage: a new process inherits the peak of the one that started it.
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def widened(project: Paths, n_classes: int, n_images: int) -> TaskPaths:
    """The tiny project with so many classes of colours, and so many test images.

    Args:
        project: of three classes; changed.
        n_classes: shades that the model tells apart, more or less.
        n_images: of the test split; each is a group of its own.
    """
    files = project.task("tiny")
    labels = [f"shade_with_a_long_name_{index:04d}" for index in range(n_classes)]
    rng = np.random.default_rng(0)
    shades = rng.uniform(40, 216, (n_classes, 3))
    entries = []
    for number in range(n_images + 2 * n_classes):
        index = number % n_classes
        split = "test" if number < n_images else ("train", "val")[number % 2]
        path = f"{labels[index]}/{number:05d}.png"
        (files.raw_dir / labels[index]).mkdir(exist_ok=True)
        pixels = np.clip(shades[index] + rng.normal(0, 6, 3) + np.zeros((36, 36, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(files.raw_dir / path)
        sha256 = hashlib.sha256(path.encode()).hexdigest()
        entries.append(Entry(path, labels[index], path, "", split, sha256, 36, 36))
    files.manifest.write_text(write_manifest(entries), encoding="utf-8")
    # The nearest shade: |x - s|² up to what all classes have in common.
    near = shades / 255
    models = {"fp32": files.onnx_fp32, "int8": files.onnx_int8}
    for path, sharpness in zip(models.values(), (400.0, 380.0), strict=True):
        net = mean_colour_net(sharpness * near.T, -sharpness / 2 * (near**2).sum(axis=1), SIDE_PX)
        onnx.save_model(net, path)
    document = read_bundle(files.candidate, verify=False).model_dump(mode="json")
    point = {
        **{"threshold": 0.2, "min_specificity": 0.9, "sensitivity": 0.8, "specificity": 0.95},
        **{"n_positive": 4, "n_negative": 8},
    }
    document |= {
        "labels": labels,
        "label_meanings": {label: "A shade." for label in labels},
        "operating_points": dict.fromkeys(labels, point),
    }
    document["outputs"][0]["shape"] = [-1, n_classes]
    document["provenance"]["data_sha256"] = content_sha256(entries)
    document["artefacts"] = [
        Artefact.of(path.name, key, path.read_bytes()).model_dump() for key, path in models.items()
    ]
    files.candidate.write_text(json.dumps(document), encoding="utf-8")
    return files


def evaluated(project: Paths) -> tuple[float, int]:
    """Seconds and bytes that `evaluate` takes in a process of its own."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", EVALUATE, str(project.root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    return time.perf_counter() - start, 1024 * int(done.stdout.splitlines()[-1])


def sizes(folder: Path) -> list[tuple[int, int]]:
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            found.append(image.size)
    assert len(found) >= 3
    return found


@pytest.mark.slow
def test_two_hundred_classes_evaluate_in_two_minutes_and_one_gigabyte(tiny_project):
    from pipelines.reports.pages import TaskResult, html_page

    files = widened(tiny_project, 200, 836)
    elapsed_s, peak_bytes = evaluated(tiny_project)
    assert elapsed_s < 120
    assert peak_bytes < 1_000_000_000
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    assert 0.3 < metrics["fp32"]["accuracy"] < 0.95
    assert len(metrics["intervals"]["fp32"]) > 800
    assert len(files.confusion.read_text(encoding="utf-8").splitlines()) == 837
    assert max(max(size) for size in sizes(files.test_figures_dir)) <= 4000
    figures = {path.stem: path.read_bytes() for path in files.test_figures_dir.glob("*.png")}
    bundle = read_bundle(files.bundle)
    page = html_page([TaskResult(bundle, metrics, (), figures)])
    assert len(page.encode()) < 3_000_000


@pytest.mark.slow
def test_a_thousand_classes_do_not_break_evaluate_or_the_report(tiny_project):
    from pipelines.reports.pages import TaskResult, html_page, results_markdown

    files = widened(tiny_project, 1000, 2000)
    elapsed_s, peak_bytes = evaluated(tiny_project)
    assert elapsed_s < 240
    assert peak_bytes < 2_000_000_000
    assert max(max(size) for size in sizes(files.test_figures_dir)) <= 4000
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    figures = {path.stem: path.read_bytes() for path in files.test_figures_dir.glob("*.png")}
    found = [TaskResult(read_bundle(files.bundle), metrics, (), figures)]
    assert len(html_page(found).encode()) < 3_000_000
    assert results_markdown(found).count("shade_with_a_long_name_0999") >= 1

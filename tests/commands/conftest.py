"""A toy project and a toy bundle: real files, small enough to make anew for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from pipelines import cli
from pipelines.paths import Paths
from tests.conftest import colour_bundle, mean_colour_net
from tests.processes import ROOT
from tests.tiny_params import params_of
from tests.toy_card import CARD


@pytest.fixture
def toy_project(tmp_path: Path) -> Path:
    """A project root with two tasks, their cards, and the repository's own shared sections."""
    root = tmp_path / "project"
    root.mkdir()
    # A task that adds nothing of its own to the shared sections.
    text = params_of("mask_detection", "toy", "other").replace(
        "domain: safety", "domain: agriculture"
    )
    real = "\n# Overlays for real images.\nreal:\n  toy: {train: {views: 7}}\n"
    (root / "params.yaml").write_text(text + real, encoding="utf-8")
    for task in ("toy", "other"):
        folder = root / "datasets" / task
        folder.mkdir(parents=True)
        (folder / "card.yaml").write_text(CARD.format(task=task, title=f"{task.title()} colours"))
    (root / "boards").mkdir()
    for name in ("dvc.yaml", ".dvcignore", "boards/dvc.yaml"):
        shutil.copy(ROOT / name, root / name)
    (root / "pipelines/stages").mkdir(parents=True)
    (root / "pipelines/stages/fetch.py").write_text("stage = 'fetch'\n")
    return root


@pytest.fixture
def toy_bundle(toy_project: Path) -> Path:
    """bundle.json of the task toy, whose model names the strongest of red, green and blue."""
    files = Paths(toy_project).task("toy")
    files.mobile_dir.mkdir(parents=True)
    for path in (files.onnx_fp32, files.onnx_int8):
        onnx.save_model(mean_colour_net(8 * np.eye(3), np.zeros(3), 8), path)
    bundle = colour_bundle(
        files,
        [],
        ("red", "green", "blue"),
        side_px=8,
        domain="agriculture",
        title="Toy colours",
        metrics={"fp32": {"accuracy": 1.0}, "int8": {"accuracy": 1.0}},
    )
    files.bundle.write_text(bundle.to_json(), encoding="utf-8")
    return files.bundle


@pytest.fixture
def colour_images(tmp_path: Path) -> dict[str, Path]:
    """One PNG a colour, by label."""
    images = {}
    for channel, label in enumerate(("red", "green", "blue")):
        pixels = np.full((20, 30, 3), 20, dtype=np.uint8)
        pixels[..., channel] = 230
        images[label] = tmp_path / f"{label}.png"
        Image.fromarray(pixels).save(images[label])
    return images


@pytest.fixture
def prepared_task(toy_project: Path, tmp_path: Path) -> str:
    """A task that `fieldlens new` made of a folder, fetched and prepared; its name."""
    rng = np.random.default_rng(5)
    for label in ("calm", "rough"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for shot in range(12):
            pixels = rng.integers(0, 255, size=(40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / label / f"{shot}.png")
    name, root = "surface", ["--root", str(toy_project)]
    folder = str(tmp_path / "own")
    assert cli.main(["new", name, "--domain", "agriculture", "--from", folder, *root]) == 0
    for verb in ("fetch", "prepare"):
        assert cli.main([verb, name, *root]) == 0
    return name

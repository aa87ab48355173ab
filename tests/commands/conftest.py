"""A toy project and a toy bundle: real files, small enough to make anew for each test."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from pipelines import cli
from tests.toy_card import CARD

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def toy_project(tmp_path: Path) -> Path:
    """A project root with two tasks, their cards, and the repository's own shared sections."""
    root = tmp_path / "project"
    root.mkdir()
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    # Everything above the tasks is kept: the seed and the anchors.
    head = re.split(r"^(?:tasks|real):", text, maxsplit=1, flags=re.MULTILINE)[0]
    block = re.search(r"^  mask_detection:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert block is not None
    # A task that adds nothing of its own to the shared sections.
    section = block[1].replace("domain: safety", "domain: agriculture")
    tasks = "\n".join(f"  {task}:\n{section}" for task in ("toy", "other"))
    real = "\n# Overlays for real images.\nreal:\n  toy: {train: {views: 7}}\n"
    (root / "params.yaml").write_text(f"{head}tasks:\n{tasks}{real}", encoding="utf-8")
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
    folder = toy_project / "models/toy/mobile"
    folder.mkdir(parents=True)
    data = _mean_colour_model()
    files = {}
    for precision in ("fp32", "int8"):
        name = f"model_{precision}.onnx"
        (folder / name).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        files[precision] = {"name": name, "sha256": sha256, "size_bytes": len(data)}
    path = folder / "bundle.json"
    path.write_text(json.dumps({**_BUNDLE, "files": files}))
    return path


def _mean_colour_model() -> bytes:
    """An ONNX model whose logits are the mean colours of the picture."""
    pixels = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 8, 8, 3])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3])
        for name in ("logits", "embedding")
    ]
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled", "axes"], ["embedding"], keepdims=0),
        helper.make_node("Identity", ["embedding"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [1], [1 / 32]),
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
    ]
    graph = helper.make_graph(nodes, "toy", [pixels], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


_ROWS = {"shape": [-1, 3], "dtype": "float32", "meaning": "mean colour"}
_BUNDLE = {
    "schema_version": 2,
    "task": "toy",
    "domain": "agriculture",
    "title": "Toy colours",
    "labels": ["red", "green", "blue"],
    "label_meanings": {"red": "Red on the whole."},
    "preprocess": {"resize_px": 9, "crop_px": 8},
    "input": {"name": "image", "shape": [-1, 8, 8, 3], "dtype": "uint8", "meaning": "RGB"},
    "logits": {"name": "logits", **_ROWS},
    "embedding": {"name": "embedding", **_ROWS},
    "served": {"precision": "int8", "reason": "a toy"},
    "int8_path": [],
    "provenance": {
        "backbone": "mobilenet_v2",
        "weights": "none",
        "weights_sha256": None,
        "weights_licence": None,
        "float_sha256": "f" * 64,
        "data_sha256": "d" * 64,
        "params_sha256": "0" * 64,
        "data_source": "sample",
        "n_images": {"train": 6, "val": 3, "test": 3},
        "n_groups": {"train": 6, "val": 3, "test": 3},
    },
    "metrics": {"fp32": {"accuracy": 1.0}, "int8": {"accuracy": 1.0}},
    "intended_use": "Tests.",
    "not_for": ["Anything else"],
}


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

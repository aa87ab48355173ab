"""A project with a small real bundle for each task: a model that sees hues, and painted tiles."""

from __future__ import annotations

import colorsys
import gzip
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from apps.phone_site import DIST_DIR
from pipelines.card import DEFAULT_KIND, DatasetCard, load_card
from pipelines.data.manifest import Entry, content_sha256, write_manifest
from pipelines.paths import Paths
from pipelines.serving.bundle import Artefact, Bundle
from tests.apps import browsing
from tests.conftest import mean_colour_net
from tests.shipped import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
TASKS = sorted(
    task
    for task in SHIPPED
    if load_card(ROOT / "datasets" / task / "card.yaml").kind == DEFAULT_KIND
)
SIDE_PX = 32
N_TEST = 2


def tile(hue: float, *, side_px: int = 64, seed: int = 0) -> Image.Image:
    """A noisy tile of one hue."""
    colour = np.array(colorsys.hsv_to_rgb(hue % 1, 0.9, 0.8)) * 255
    noise = np.random.default_rng(seed).normal(0, 6, size=(side_px, side_px, 3))
    return Image.fromarray(np.clip(colour + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def hue_of(card: DatasetCard, label: str) -> float:
    return card.labels.index(label) / len(card.labels)


def black() -> Image.Image:
    """A picture of a kind that no model here knows."""
    return Image.new("RGB", (64, 64))


def _directions(n_labels: int) -> np.ndarray:
    """(3, n) unit vectors in the plane of hues, one a label."""
    colours = np.array([colorsys.hsv_to_rgb(index / n_labels, 1, 1) for index in range(n_labels)])
    rows = colours - colours.mean(axis=1, keepdims=True)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).T


def hue_model(n_labels: int, strength: float) -> onnx.ModelProto:
    return mean_colour_net(strength * _directions(n_labels), np.zeros(n_labels), SIDE_PX)


def _bundle(card: DatasetCard, files: dict[str, Path], entries: list[Entry]) -> Bundle:
    """The golden bundle, which holds what has no hue for out of distribution, made a card's."""
    document = json.loads((ROOT / "tests/golden/bundle_schema_3.json").read_text(encoding="utf-8"))
    labels, n = card.labels, len(card.labels)
    is_shortcut = card.task == "chest_xray"
    verdict = "shortcut" if is_shortcut else "clean"
    score = {
        **document["audit"]["scores"][0],
        "name": "file_facts",
        "sees": "size, mode and bytes of the file",
        "share": 0.9 if is_shortcut else 0.1,
        "verdict": verdict,
    }
    point = {**document["operating_points"]["red_tile"], "threshold": 0.25, "sensitivity": 0.93}
    watched = {"chest_xray": "covid19", "skin_lesion": "melanoma"}.get(card.task)
    metrics = {"n": len(entries), "accuracy": 0.9, "macro_f1": 0.88}
    intervals = {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}}
    document["outputs"][0]["shape"] = [-1, n]
    document["provenance"].update(
        data_sha256=content_sha256(entries),
        n_images={"train": 40, "val": 10, "test": len(entries)},
        n_groups={"train": 20, "val": 5, "test": len(entries)},
    )
    document["audit"].update(task=card.task, scores=[score], verdict=verdict)
    document.update(
        task=card.task,
        domain=card.domain,
        title=card.title,
        labels=labels,
        label_meanings={entry.label: entry.meaning for entry in card.classes},
        label_names={},
        artefacts=[
            Artefact.of(path.name, precision, path.read_bytes())
            for precision, path in files.items()
        ],
        operating_points={watched: point} if watched else {},
        metrics={"fp32": metrics, "int8": metrics},
        intervals={"fp32": intervals, "int8": intervals},
        intended_use=card.intended_use,
        not_for=card.not_for,
    )
    return Bundle.model_validate(document)


def serve_model(root: Path, task: str, model: bytes) -> None:
    """Another int8 file for a task, with the hash and the size that its bundle names."""
    files = Paths(root).task(task)
    files.onnx_int8.write_bytes(model)
    document = json.loads(files.bundle.read_text(encoding="utf-8"))
    document["artefacts"][1] = Artefact.of(files.onnx_int8.name, "int8", model).model_dump()
    files.bundle.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture(autouse=True)
def _main_module_comes_back() -> Iterator[None]:
    """AppTest puts the app's script in place of ``__main__``, which spawned processes load anew."""
    before = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = before


@pytest.fixture(scope="session")
def app_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with bundles and test pictures of all tasks; made once, not to be changed."""
    paths = Paths(tmp_path_factory.mktemp("apps") / "project")
    for task in TASKS:
        files = paths.task(task)
        files.card.parent.mkdir(parents=True)
        shutil.copyfile(ROOT / "datasets" / task / "card.yaml", files.card)
        card = load_card(files.card)
        entries = []
        for label in card.labels:
            (files.raw_dir / label).mkdir(parents=True)
            for number in range(N_TEST):
                path = f"{label}/{number}.png"
                data = encoded(tile(hue_of(card, label), seed=number))
                (files.raw_dir / path).write_bytes(data)
                sha256 = hashlib.sha256(data).hexdigest()
                entries.append(Entry(path, label, path, "", "test", sha256, 64, 64))
        files.prepared_dir.mkdir(parents=True)
        files.manifest.write_text(write_manifest(entries), encoding="utf-8")
        files.mobile_dir.mkdir(parents=True)
        models = {"fp32": files.onnx_fp32, "int8": files.onnx_int8}
        for strength, path in zip((7.0, 6.9), models.values(), strict=True):
            onnx.save_model(hue_model(len(card.labels), strength), path)
        bundle = _bundle(card, models, entries)
        files.bundle.write_text(bundle.to_json(), encoding="utf-8")
    return paths.root


@pytest.fixture
def app_root(app_template: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project that the apps of this process see."""
    monkeypatch.setenv("FIELDLENS_ROOT", str(app_template))
    monkeypatch.delenv("FIELDLENS_MODELS_ROOT", raising=False)
    monkeypatch.delenv("FIELDLENS_PHONE_URL", raising=False)
    return app_template


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium for the phone page; skips with the reason where it or the built page is missing."""
    pytest.importorskip("playwright", reason="Playwright is not installed")
    if browsing.chromium() is None:
        pytest.skip("there is no Chromium (install it, or name it in CHROMIUM)")
    if not (DIST_DIR / "index.html").is_file():
        pytest.skip("the phone page is not built (make phone)")
    with browsing.browser() as opened:
        yield opened


#: As if it were a program, and large enough to be worth compressing.
WASM = b"\0asm" + bytes(2000)


@pytest.fixture(scope="session")
def dist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page as the build leaves it, only smaller."""
    folder = tmp_path_factory.mktemp("site") / "dist"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>page</title>", encoding="utf-8")
    (folder / "manifest.webmanifest").write_text("{}", encoding="utf-8")
    (folder / "assets/loader-abc.mjs").write_text("export {}", encoding="utf-8")
    (folder / "assets/ort-abc.wasm").write_bytes(WASM)
    (folder / "assets/ort-abc.wasm.gz").write_bytes(gzip.compress(WASM))
    (folder / "assets/ort-abc.wasm.br").write_bytes(b"brotli")
    (folder.parent / "secret.txt").write_text("secret", encoding="utf-8")
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    return folder

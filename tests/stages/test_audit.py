"""audit on painted folders: a planted shortcut is caught, and the same without it is clean."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from pipelines.atomic import file_sha256
from pipelines.config.audit import AuditParams
from pipelines.config.train import TrainParams
from pipelines.data.manifest import Entry, write_manifest
from pipelines.errors import CorruptImageError, MissingDataError
from pipelines.kinds import blind
from pipelines.paths import Paths
from pipelines.serving.trust import AuditReport
from pipelines.stages import audit
from pipelines.training.embedder import embed, embedder, kept_at
from tests.tiny_params import PARAMS as TRAIN

TASK, SEED, SIDE_PX = "blobs", 7, 32
LABELS = ("red", "blue")
N_GROUPS, PER_GROUP = 16, 2
PARAMS = AuditParams(folds=3, suspicious_share=0.5, shortcut_share=0.8)

#: (pixels, label, generator) -> suffix, and whatever is done to the pixels.
Plant = Callable[[np.ndarray, str, np.random.Generator], str]


@pytest.fixture(autouse=True)
def _few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few do for what is planted here, in a third of the time."""
    monkeypatch.setattr(blind, "_N_TREES", 25)


def train_params() -> TrainParams:
    return TrainParams.model_validate(TRAIN | {"image_px": SIDE_PX})


def nothing(pixels: np.ndarray, label: str, rng: np.random.Generator) -> str:
    # As many bytes for red as for blue: a compressed file would tell them apart, by a little.
    return ".bmp"


def by_type(pixels: np.ndarray, label: str, rng: np.random.Generator) -> str:
    return ".png" if label == "red" else ".bmp"


def by_border(pixels: np.ndarray, label: str, rng: np.random.Generator) -> str:
    # Wider than what the central crop takes away.
    colour = (30, 30, 60) if label == "red" else (60, 30, 30)
    for edge in (pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]):
        edge[:] = colour
    return nothing(pixels, label, rng)


def project(
    root: Path, plant: Plant, *, flipped: int | None = None, sources: bool = False
) -> Paths:
    """Noise with a blob in the middle, red or blue; what else tells the label is planted."""
    paths = Paths(root)
    files = paths.task(TASK)
    rng = np.random.default_rng(SEED)
    entries = []
    for label in LABELS:
        for group in range(N_GROUPS):
            for shot in range(PER_GROUP):
                pixels = rng.integers(90, 130, (40, 40 + rng.integers(3), 3)).astype(np.uint8)
                pixels[14:26, 14:26, 0 if label == "red" else 2] += 100
                suffix = plant(pixels, label, rng)
                path = f"{label}/{group:02d}_{shot}{suffix}"
                (files.raw_dir / label).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(files.raw_dir / path)
                split = "test" if group >= 13 else "val" if group >= 11 else "train"
                source = ("clinic_" + label if group % 4 else "clinic_red") if sources else ""
                sha256 = file_sha256(files.raw_dir / path)
                name = f"{label}{group:02d}"
                entries.append(Entry(path, label, name, source, split, sha256, 40, 40))  # type: ignore[arg-type]
    if flipped is not None:
        entries[flipped] = replace(entries[flipped], label=LABELS[1])
    files.prepared_dir.mkdir(parents=True)
    files.manifest.write_text(write_manifest(entries), encoding="utf-8")
    summary = {"labels": LABELS, "data_source": "sample"}
    files.prepare_summary.write_text(json.dumps(summary), encoding="utf-8")
    kept = kept_at(train_params(), SEED, paths)
    kept.parent.mkdir(parents=True)
    onnx.save_model(mean_colours(), kept)
    return paths


def mean_colours() -> onnx.ModelProto:
    """A backbone of one layer, where `audit` looks for the exported one: no torch is needed."""
    shape = ["n", SIDE_PX, SIDE_PX, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["values"], ["activations"], perm=[0, 3, 1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "backbone",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("activations", TensorProto.FLOAT, ["n", 3, None, None])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    return model


def run(paths: Paths, params: AuditParams = PARAMS) -> AuditReport:
    audit.run(TASK, params, train_params(), 200, SEED, paths)
    return AuditReport.model_validate_json(paths.task(TASK).audit.read_text())


def verdicts(report: AuditReport) -> dict[str, str]:
    return {score.name: score.verdict for score in report.scores if score.decides}


@pytest.mark.parametrize(
    ("plant", "expected"),
    [
        (nothing, {"file_facts": "clean", "border": "clean"}),
        (by_type, {"file_facts": "shortcut", "border": "clean"}),
        (by_border, {"file_facts": "clean", "border": "shortcut"}),
    ],
)
def test_planted_shortcut_is_caught_and_nothing_else(tmp_path, plant, expected):
    report = run(project(tmp_path, plant))
    assert verdicts(report) == expected
    assert report.verdict == ("shortcut" if "shortcut" in expected.values() else "clean")
    assert report.probe.value > 0.95
    assert (report.n_images, report.n_groups, report.folds) == (52, 26, 3)
    # The blob itself: reported, and not held against the data.
    colour = next(score for score in report.scores if score.name == "colour")
    assert colour.verdict == "shortcut"
    assert not colour.decides


def test_source_that_tells_the_label(tmp_path):
    report = run(project(tmp_path, nothing, sources=True))
    found = {score.name: score for score in report.scores}
    # Every fourth blue group comes from the red clinic.
    assert set(report.source_purity) == {"clinic_red", "clinic_blue"}
    assert report.source_purity["clinic_blue"] == 1.0
    assert 0.7 < found["source"].macro_f1.value < 0.95
    assert found["source"].verdict != "clean"
    assert found["source_from_pixels"].macro_f1.value > 0.6
    assert not found["source_from_pixels"].decides


def test_files_are_written_alike_again_and_test_images_are_not_opened(tmp_path):
    paths = project(tmp_path, nothing)
    files = paths.task(TASK)
    run(paths)
    before = {path.name: path.read_bytes() for path in [files.audit, *files.audit_dir.iterdir()]}
    assert {"audit.json", "audit.png", "label_issues.csv", "file_facts.png"} <= set(before)
    for group in range(13, N_GROUPS):
        for path in files.raw_dir.glob(f"*/{group}_*"):
            path.write_bytes(b"spoilt")
    run(paths)
    after = {path.name: path.read_bytes() for path in [files.audit, *files.audit_dir.iterdir()]}
    assert after == before
    assert Image.open(io.BytesIO(after["audit.png"])).size[0] > 600


def test_flipped_label_is_doubted_and_a_reason_is_written_down(tmp_path):
    paths = project(tmp_path, nothing, flipped=0)
    reason = "the app is shown to students only"
    report = run(paths, PARAMS.model_copy(update={"accepted": reason}))
    assert report.accepted == reason
    files = paths.task(TASK)
    rows = list(csv.DictReader(io.StringIO(files.label_issues.read_text(encoding="utf-8"))))
    assert report.n_label_issues == len(rows) == 1
    assert rows[0]["path"].startswith("red/00_0")
    assert (rows[0]["label"], rows[0]["suggested"]) == ("blue", "red")
    assert float(rows[0]["probability"]) > 0.5
    assert (files.audit_dir / "label_issues.png").is_file()


def test_before_prepare_and_with_a_spoilt_image(tmp_path):
    with pytest.raises(MissingDataError, match="fieldlens prepare"):
        run(Paths(tmp_path / "empty"))
    paths = project(tmp_path, nothing)
    next((paths.task(TASK).raw_dir / "red").glob("00_0*")).write_bytes(b"spoilt")
    with pytest.raises(CorruptImageError, match="00_0"):
        run(paths)
    assert not paths.task(TASK).audit.exists()


@pytest.mark.slow
def test_backbone_is_exported_once_and_kept(tmp_path):
    paths, params = Paths(tmp_path), train_params()
    batch = np.random.default_rng(1).integers(0, 256, (3, SIDE_PX, SIDE_PX, 3), np.uint8)
    first = embed(embedder(params, SEED, paths), batch)
    assert first.shape == (3, 576)
    kept = kept_at(params, SEED, paths)
    assert kept.is_file()
    stamp = kept.stat().st_mtime_ns
    np.testing.assert_array_equal(embed(embedder(params, SEED, paths), batch), first)
    assert kept.stat().st_mtime_ns == stamp
    assert kept_at(params, SEED + 1, paths) != kept
    assert kept_at(params.model_copy(update={"image_px": 64}), SEED, paths) != kept

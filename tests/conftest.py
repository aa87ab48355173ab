"""A tiny project: three labels that are colours, and a real ONNX bundle that sees them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from pipelines.atomic import file_sha256
from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry, content_sha256, write_manifest
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import Artefact, Bundle
from pipelines.serving.trust import AuditReport, AuditScore, Interval

TASK = "tiny"
LABELS = ("red_tile", "green_tile", "blue_tile")
SIDE_PX = 32
#: Images of a label in each split; groups hold two.
N_IMAGES = {"train": 4, "val": 4, "test": 12}


@pytest.fixture(autouse=True)
def _untracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes to an MLflow store unless it asks for one."""
    monkeypatch.setenv("FIELDLENS_TRACKING", "off")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def faults_dir() -> Path:
    """Small inputs that once failed: beside the checkout, or where FIELDLENS_FAULTS says."""
    stated = os.environ.get("FIELDLENS_FAULTS")
    folder = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared" / "faults"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there (FIELDLENS_FAULTS names another)")
    return folder


@pytest.fixture
def tiny_project(tmp_path: Path, _tiny_template: Paths) -> Paths:
    """A project root with raw images, manifest.csv and candidate.json of the task ``tiny``."""
    return Paths(Path(shutil.copytree(_tiny_template.root, tmp_path / "project")))


@pytest.fixture
def tested_project(tmp_path: Path, _tested_template: Paths) -> Paths:
    """The tiny project after `evaluate`."""
    return Paths(Path(shutil.copytree(_tested_template.root, tmp_path / "tested")))


@pytest.fixture(scope="session")
def _tested_template(tmp_path_factory: pytest.TempPathFactory, _tiny_template: Paths) -> Paths:
    # Here, not at the top: matplotlib costs every other test run a second.
    from pipelines.stages import evaluate

    folder = tmp_path_factory.mktemp("tested") / "project"
    paths = Paths(Path(shutil.copytree(_tiny_template.root, folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLENS_TRACKING", "off")
        evaluate.run(TASK, EvaluateParams(calibration_bins=10, resamples=200), 42, paths)
    return paths


@pytest.fixture(scope="session")
def _tiny_template(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    paths = Paths(tmp_path_factory.mktemp("tiny") / "project")
    files = paths.task(TASK)
    entries = _paint(files.raw_dir)
    files.prepared_dir.mkdir(parents=True)
    files.manifest.write_text(write_manifest(entries), encoding="utf-8")
    files.reports_dir.mkdir(parents=True)
    files.audit.write_text(_tiny_audit().model_dump_json(indent=2) + "\n", encoding="utf-8")
    files.mobile_dir.mkdir(parents=True)
    # The int8 file is the same model with a leaning to green: it errs a little more.
    for path, leaning in ((files.onnx_fp32, 0.0), (files.onnx_int8, 2.2)):
        # Mean colour as embedding, and of it the logits.
        onnx.save_model(
            mean_colour_net(12 * (np.eye(3) - 1 / 3), np.array([0, leaning, 0]), SIDE_PX), path
        )
    files.candidate.write_text(colour_bundle(files, entries).to_json(), encoding="utf-8")
    return paths


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow store; making one takes seconds, copying it does not."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracked_project(
    tiny_project: Paths, mlflow_template: Path, monkeypatch: pytest.MonkeyPatch
) -> Paths:
    """The tiny project, with tracking on and a store of its own."""
    monkeypatch.delenv("FIELDLENS_TRACKING")
    shutil.copyfile(mlflow_template, tiny_project.mlflow_db)
    return tiny_project


def _paint(raw_dir: Path) -> list[Entry]:
    rng = np.random.default_rng(7)
    entries = []
    for channel, label in enumerate(LABELS):
        (raw_dir / label).mkdir(parents=True)
        for split, n_images in N_IMAGES.items():
            for number in range(n_images):
                path = f"{label}/{split}_{number:02d}.png"
                colour = rng.uniform(60, 160, size=3)
                colour[channel] += 50
                pixels = np.clip(colour + rng.normal(0, 12, size=(40, 36, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(raw_dir / path)
                group = f"{label}-{split}-{number // 2}"
                sha256 = file_sha256(raw_dir / path)
                entries.append(Entry(path, label, group, "", split, sha256, 36, 40))  # type: ignore[arg-type]
    return entries


def _tiny_audit() -> AuditReport:
    """What `audit` might say of the tiny tiles: nothing to worry about."""
    border = AuditScore(
        name="border",
        sees="the outermost 4 % of each side of the model's view",
        macro_f1=Interval(value=0.3, low=0.2, high=0.4),
        share=0.16,
        verdict="clean",
        decides=True,
    )
    return AuditReport(
        task=TASK,
        n_images=24,
        n_groups=12,
        folds=4,
        chance=0.17,
        probe=Interval(value=1.0, low=1.0, high=1.0),
        scores=(border,),
        verdict="clean",
        accepted=None,
        suspicious_share=0.5,
        shortcut_share=0.8,
    )


def mean_colour_net(weights: np.ndarray, bias: np.ndarray, side_px: int) -> onnx.ModelProto:
    """uint8 (n, side, side, 3) -> mean colour as embedding (n, 3) -> logits (n, c).

    Args:
        weights: (3, c).
        bias: (c,).
    """
    constants = [
        numpy_helper.from_array(np.float32(255), "full"),
        numpy_helper.from_array(weights.astype(np.float32), "weights"),
        numpy_helper.from_array(bias.astype(np.float32), "bias"),
    ]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["values", "full"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["embedding"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["embedding", "weights", "bias"], ["logits"]),
    ]
    shape = ["n", side_px, side_px, 3]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(bias)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    return model


def colour_bundle(
    files: TaskPaths,
    entries: Sequence[Entry],
    labels: Sequence[str] = LABELS,
    side_px: int = SIDE_PX,
    **changes: object,
) -> Bundle:
    """The candidate for the two files that lie in a task's mobile folder."""
    models = {"fp32": files.onnx_fp32, "int8": files.onnx_int8}
    image = {"shape": [-1, side_px, side_px, 3], "dtype": "uint8", "meaning": "RGB pixels"}
    floats = {"shape": [-1, 3], "dtype": "float32"}
    splits = tuple(N_IMAGES)
    document = {
        "schema_version": 3,
        "kind": "classification",
        "task": files.task,
        "domain": "reference",
        "title": "Tiny tiles",
        "labels": labels,
        "label_meanings": {label: label.replace("_", " ") for label in labels},
        "preprocess": {"resize_px": side_px + side_px // 8, "crop_px": side_px},
        "input": {"name": "pixels", **image},
        "outputs": [
            {"name": "logits", "meaning": "one a label", **floats},
            {"name": "embedding", "meaning": "mean colour", **floats},
        ],
        "artefacts": [
            Artefact.of(path.name, precision, path.read_bytes())
            for precision, path in models.items()
        ],
        "served": {"precision": "int8", "reason": "smaller"},
        "int8_path": [],
        "provenance": {
            "backbone": "mobilenet_v2",
            "weights": "imagenet",
            "weights_sha256": "aa" * 32,
            "weights_licence": "BSD-3-Clause",
            "float_sha256": "bb" * 32,
            "data_sha256": content_sha256(entries),
            "params_sha256": "cc" * 32,
            "data_source": "sample",
            "n_images": {s: sum(e.split == s for e in entries) for s in splits},
            "n_groups": {s: len({e.group for e in entries if e.split == s}) for s in splits},
        },
        "intended_use": "tests",
        "not_for": ["anything else"],
    }
    return Bundle.model_validate(document | changes)

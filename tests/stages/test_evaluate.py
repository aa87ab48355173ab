from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image
from sklearn import metrics as sk

from pipelines.atomic import file_sha256
from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import content_sha256, read_manifest, write_manifest
from pipelines.errors import (
    BundleError,
    CorruptImageError,
    DataError,
    LeakageError,
    MissingDataError,
)
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.trust import AuditReport, AuditScore, Interval
from pipelines.stages import evaluate
from tests.file_tree import file_tree

PARAMS = EvaluateParams(calibration_bins=10, resamples=200)


@pytest.fixture
def files(tiny_project: Paths) -> TaskPaths:
    return tiny_project.task("tiny")


def audit_report(task: str = "tiny") -> AuditReport:
    facts = AuditScore(
        name="file_facts",
        sees="size, mode and type of the file",
        macro_f1=Interval(value=0.5, low=0.4, high=0.6),
        share=0.25,
        verdict="clean",
        decides=True,
    )
    return AuditReport(
        task=task,
        n_images=72,
        n_groups=36,
        folds=5,
        chance=1 / 6,
        probe=Interval(value=0.9, low=0.85, high=0.95),
        scores=(facts,),
        verdict="clean",
        accepted=None,
        suspicious_share=0.3,
        shortcut_share=0.6,
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_evaluate_measures_what_the_app_would_answer(tiny_project, files):
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    metrics = json.loads(files.metrics.read_text())
    test = [entry for entry in read_manifest(files.manifest) if entry.split == "test"]
    answers = {}
    for precision in ("fp32", "int8"):
        predictor = Predictor.load(files.candidate, precision)
        found = [predictor.predict(files.raw_dir / entry.path) for entry in test]
        answers[precision] = [prediction.label for prediction in found]
        true = [entry.label for entry in test]
        assert metrics[precision]["accuracy"] == round(
            sk.accuracy_score(true, answers[precision]), 6
        )
        f1 = sk.f1_score(true, answers[precision], average="macro")
        assert metrics[precision]["macro_f1"] == round(f1, 6)
        lines = rows_of(files.predictions)
        assert [line[f"{precision}_answer"] for line in lines] == answers[precision]
        assert [line["path"] for line in lines] == [entry.path for entry in test]
        for line, prediction in zip(lines, found, strict=True):
            for label, probability in prediction.probabilities.items():
                assert float(line[f"{precision}_{label}"]) == pytest.approx(probability, abs=2e-6)
    same = np.mean(np.array(answers["fp32"]) == np.array(answers["int8"]))
    assert metrics["agreement"] == round(float(same), 6)
    # The fixture is made so that the two files differ; else the comparisons above are empty.
    assert metrics["agreement"] < 1
    assert metrics["accuracy_drop"] == pytest.approx(
        metrics["fp32"]["accuracy"] - metrics["int8"]["accuracy"], abs=2e-6
    )
    assert metrics["n_images"] == 36
    assert metrics["n_groups"] == 18
    assert metrics["served"] == "int8"
    assert metrics["data_source"] == "sample"
    assert metrics["bytes"]["int8"] == files.onnx_int8.stat().st_size
    confusion = rows_of(files.confusion)
    assert [line["actual"] for line in confusion] == true
    assert [line["predicted"] for line in confusion] == answers["int8"]


def test_evaluate_finishes_the_bundle_and_leaves_the_candidate(tiny_project, files):
    before = files.candidate.read_bytes()
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert files.candidate.read_bytes() == before
    bundle = read_bundle(files.bundle)
    metrics = json.loads(files.metrics.read_text())
    assert bundle.metrics == {key: metrics[key] for key in ("fp32", "int8")}
    blank = {"metrics": None, "intervals": None, "audit": None}
    assert bundle.model_copy(update=blank) == read_bundle(files.candidate)
    names = {path.name for path in files.test_figures_dir.iterdir()}
    assert names == {"confusion.png", "reliability.png", "roc.png"}


def test_evaluate_gives_every_metric_its_interval(tiny_project, files):
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    metrics = json.loads(files.metrics.read_text())
    bundle = read_bundle(files.bundle)
    for precision in ("fp32", "int8"):
        found = metrics["intervals"][precision]
        plain = metrics[precision]
        assert found["roc_auc_ovr"]["value"] == pytest.approx(
            plain["roc_auc_ovr"]["macro"], abs=2e-6
        )
        for name in ("accuracy", "macro_f1", "balanced_accuracy", "ece", "brier"):
            assert found[name]["value"] == pytest.approx(plain[name], abs=2e-6)
            assert found[name]["low"] <= found[name]["high"]
        for label, entry in plain["per_class"].items():
            for name in ("precision", "recall", "specificity"):
                value = found[f"{name}.{label}"]["value"]
                assert value == pytest.approx(entry[name], abs=2e-6)
        kept = {name: each.model_dump() for name, each in bundle.intervals[precision].items()}
        assert kept == found
    accuracy = metrics["intervals"]["int8"]["accuracy"]
    assert 0 < accuracy["low"] < accuracy["value"] < accuracy["high"] < 1


def test_evaluate_compares_int8_with_fp32_on_the_same_resamples(tiny_project, files):
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    metrics = json.loads(files.metrics.read_text())
    drop = metrics["paired"]["accuracy_drop"]
    assert drop["value"] == metrics["accuracy_drop"]
    assert drop["low"] < drop["value"] < drop["high"]
    # Images that are hard for both cancel out: sharper than two intervals apart.
    both = [metrics["intervals"][precision]["accuracy"] for precision in ("fp32", "int8")]
    assert drop["high"] - drop["low"] < sum(each["high"] - each["low"] for each in both)
    f1 = [metrics[precision]["macro_f1"] for precision in ("fp32", "int8")]
    assert metrics["paired"]["macro_f1_drop"]["value"] == pytest.approx(f1[0] - f1[1], abs=2e-6)
    assert metrics["paired"]["agreement"]["value"] == metrics["agreement"]


def test_evaluate_of_an_int8_file_that_is_the_fp32_file_finds_no_difference(tiny_project, files):
    document = json.loads(files.candidate.read_text())
    fp32, _ = document["artefacts"]
    document["artefacts"] = [fp32, {**fp32, "precision": "int8"}]
    files.candidate.write_text(json.dumps(document))
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    paired = json.loads(files.metrics.read_text())["paired"]
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert paired["accuracy_drop"] == paired["macro_f1_drop"] == nothing
    assert paired["agreement"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_evaluate_another_seed_draws_other_resamples(tiny_project, files):
    found = []
    for seed in (1, 2):
        evaluate.run("tiny", PARAMS, seed, tiny_project)
        found.append(json.loads(files.metrics.read_text()))
    assert found[0]["intervals"] != found[1]["intervals"]
    assert found[0]["int8"] == found[1]["int8"]


def test_evaluate_without_an_audit_says_so_in_the_bundle(tiny_project, files):
    files.audit.unlink()
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert read_bundle(files.bundle).audit is None


def test_evaluate_puts_the_audit_into_the_bundle(tiny_project, files):
    report = audit_report()
    files.reports_dir.mkdir(parents=True, exist_ok=True)
    files.audit.write_text(report.model_dump_json())
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert read_bundle(files.bundle).audit == report


def test_evaluate_damaged_audit_is_refused_before_anything_is_answered(tiny_project, files):
    files.reports_dir.mkdir(parents=True, exist_ok=True)
    files.audit.write_text('{"task": "tiny"')
    with pytest.raises(MissingDataError, match=r"audit\.json: is no audit report"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert not files.metrics.exists()
    files.audit.write_text(audit_report(task="other").model_dump_json())
    with pytest.raises(MissingDataError, match="of 'other'"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)


def test_evaluate_twice_and_elsewhere_gives_the_same_bytes(tiny_project, files, tmp_path):
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    first = file_tree(tiny_project.root)
    assert not [name for name in first if ".tmp-" in name]
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert file_tree(tiny_project.root) == first
    moved = Paths(tmp_path / "moved")
    tiny_project.root.rename(moved.root)
    evaluate.run("tiny", PARAMS, 42, moved)
    assert file_tree(moved.root) == first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_evaluate_splits_made_after_the_training_are_refused(tiny_project, files):
    entries = read_manifest(files.manifest)
    swapped = {"train": "test", "test": "train", "val": "val"}
    moved = [replace(entry, split=swapped[entry.split]) for entry in entries]
    files.manifest.write_text(write_manifest(moved))
    with pytest.raises(LeakageError, match="may have been train images"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert not files.metrics.exists()
    assert not files.bundle.exists()


def with_manifest(files: TaskPaths, entries: list) -> None:
    files.manifest.write_text(write_manifest(entries))
    text = files.candidate.read_text()
    old = json.loads(text)["provenance"]["data_sha256"]
    files.candidate.write_text(text.replace(old, content_sha256(entries)))


def test_evaluate_empty_test_split(tiny_project, files):
    with_manifest(files, [e for e in read_manifest(files.manifest) if e.split != "test"])
    with pytest.raises(DataError, match="test split is empty"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)


def test_evaluate_label_that_the_model_does_not_know(tiny_project, files):
    entries = read_manifest(files.manifest)
    with_manifest(files, [replace(entries[0], label="mauve_tile", split="test"), *entries[1:]])
    with pytest.raises(DataError, match="knows no label mauve_tile"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)


def test_evaluate_picture_damaged_after_prepare_is_named(tiny_project, files):
    path = files.raw_dir / "green_tile/test_03.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(CorruptImageError, match=r"test_03\.png"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert not files.metrics.exists()


def test_evaluate_changed_model_file(tiny_project, files):
    files.onnx_int8.write_bytes(files.onnx_int8.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="not the one that the bundle names"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)


def test_evaluate_model_that_gives_nan_is_refused(tiny_project, files):
    model = onnx.load(files.onnx_int8)
    bias = next(entry for entry in model.graph.initializer if entry.name == "bias")
    bias.CopyFrom(numpy_helper.from_array(np.float32([0, np.nan, 0]), "bias"))
    onnx.save_model(model, files.onnx_int8)
    document = json.loads(files.candidate.read_text())
    _, int8 = document["artefacts"]
    int8 |= {
        "sha256": file_sha256(files.onnx_int8),
        "size_bytes": files.onnx_int8.stat().st_size,
    }
    files.candidate.write_text(json.dumps(document))
    with pytest.raises(DataError, match="NaN or infinity for 36 of 36"):
        evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert not files.bundle.exists()


def test_evaluate_counts_a_class_without_test_images_as_undefined(tiny_project, files):
    entries = read_manifest(files.manifest)
    kept = [e for e in entries if e.split != "test" or e.label != "blue_tile"]
    with_manifest(files, kept)
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    metrics = json.loads(files.metrics.read_text())
    assert metrics["int8"]["per_class"]["blue_tile"]["recall"] is None
    assert metrics["int8"]["roc_auc_ovr"]["macro"] is None
    assert "NaN" not in files.metrics.read_text()


def test_evaluate_reads_odd_files_as_the_app_does(tiny_project, files):
    # A grey palette picture under a .png name in the test split must not stop anything.
    path = files.raw_dir / "red_tile/test_00.png"
    Image.new("P", (90, 50), 3).save(path, format="GIF")
    evaluate.run("tiny", PARAMS, 42, tiny_project)
    assert files.bundle.exists()


def test_evaluate_imports_no_torch():
    code = (
        "import sys, pipelines.stages.evaluate;"
        "sys.exit(bool({'torch', 'mlflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0

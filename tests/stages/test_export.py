from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.atomic import file_sha256
from pipelines.config.export import ExportParams
from pipelines.data.manifest import (
    class_index_of,
    content_sha256,
    in_split,
    read_manifest,
    write_manifest,
)
from pipelines.errors import BundleError, LeakageError, MissingDataError
from pipelines.metrics.calibration import fit_temperature, operating_point
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.classification import softmax
from pipelines.serving.predictor import Predictor
from pipelines.stages import export
from pipelines.training.float_model import FloatModel, load_float_model, save_float_model
from pipelines.training.job import normalise

LABELS = ("red_tile", "green_tile", "blue_tile")
CARD = """\
title: Tiny tiles
task: tiny
domain: reference
source: {publisher: us, url: "https://example.org", version: "1", retrieved: "2026-01-01"}
licence: {spdx: Apache-2.0, url: "https://example.org", redistribution: Yes.}
citation: {text: None needed.}
classes:
  - {label: red_tile, name: 红砖, meaning: A red tile.}
  - {label: green_tile, meaning: A green tile.}
  - {label: blue_tile, meaning: A blue tile., is_alarm: false}
unit_of_observation: one tile
group_key: tile
image: {modality: painting, channels: 3, bit_depth: 8}
splits: made
known_biases: [It is painted.]
consent_and_privacy: Nobody is on it.
intended_use: tests
not_for: [anything else]
"""


def params(**changes) -> ExportParams:
    document = {
        "calibration_images": 12,
        "remedies": ["minmax", "equalize"],
        "min_agreement": 0.0,
        "max_accuracy_drop": 1.0,
        "max_macro_f1_drop": 1.0,
        "max_int8_bytes": 10**8,
        "min_speedup": 0.001,
        "acceptance": 0.95,
    }
    return ExportParams.model_validate({**document, **changes})


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    torch.set_num_threads(1)


@pytest.fixture
def project(tiny_project: Paths) -> Paths:
    """The tiny project after a training that made a network of random weights."""
    files = tiny_project.task("tiny")
    files.card.write_text(CARD)
    for path in files.mobile_dir.iterdir():
        path.unlink()
    meta = FloatModel(
        task="tiny",
        domain="reference",
        labels=LABELS,
        backbone="mobilenet_v3_small",
        cut=9,
        hidden=(),
        dropout=0.1,
        is_folded=False,
        resize_px=36,
        image_px=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        strategy="full",
        weights="none",
        weights_provider=None,
        weights_sha256=None,
        weights_licence=None,
        data_sha256=content_sha256(read_manifest(files.manifest)),
        data_source="sample",
        n_images={"train": 12, "val": 12, "test": 36},
        n_groups={"train": 6, "val": 6, "test": 18},
        params_sha256="cc" * 32,
        val={"val_accuracy": 0.5},
    )
    torch.manual_seed(3)
    model = meta.build()
    with torch.no_grad():
        model.head[-1].weight.normal_()
        model.head[-1].bias.normal_()
    files.float_dir.mkdir(parents=True)
    save_float_model(files.float_dir, meta, model)
    return tiny_project


@pytest.fixture
def files(project) -> TaskPaths:
    return project.task("tiny")


def test_export_writes_a_candidate_that_answers_like_the_float_model(project, files):
    # Neither the test split nor its labels are looked at.
    entries = read_manifest(files.manifest)
    for entry in in_split(entries, "test"):
        (files.raw_dir / entry.path).write_bytes(b"not an image")
    export.run("tiny", params(min_specificity=0.5), 7, project)
    bundle = read_bundle(files.candidate)
    _, model, sha256 = load_float_model(files.float_dir)
    assert bundle.labels == LABELS
    assert bundle.title == "Tiny tiles"
    assert bundle.label_meanings["red_tile"] == "A red tile."
    assert bundle.label_names == {"red_tile": "红砖"}
    assert bundle.not_for == ("anything else",)
    assert bundle.metrics is None
    assert bundle.served.precision == "int8"
    assert "trained on" not in bundle.served.reason
    assert bundle.provenance.float_sha256 == sha256
    assert bundle.provenance.data_sha256 == content_sha256(entries)
    assert bundle.is_sample
    # What the head reads, and what the last depthwise convolution reads.
    assert bundle.output("embedding").shape == (-1, 576 + 576)
    assert [c.remedy for c in bundle.int8_path if c.is_chosen] == ["minmax"]
    assert bundle.files["int8"].size_bytes < 0.35 * bundle.files["fp32"].size_bytes
    assert bundle.files["int8"].sha256 == file_sha256(files.onnx_int8)

    predictor = Predictor.load(files.candidate, "fp32")
    val = [files.raw_dir / entry.path for entry in in_split(entries, "val")]
    pixels = np.stack([predictor.pixels(path) for path in val])
    with torch.inference_mode():
        normal = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        expected, _ = model(normal)
    np.testing.assert_allclose(predictor.run(pixels)[0], expected, atol=1e-3)

    # What is said about trust holds for the file that is served.
    served = Predictor.load(files.candidate)
    logits, embedding = served.run(pixels)
    truth = class_index_of(in_split(entries, "val"), LABELS)
    assert bundle.temperature == pytest.approx(fit_temperature(logits, truth), rel=1e-4)
    assert bundle.temperature != 1.0
    assert not served.out_of_distribution.judge(embedding)[1].any()
    assert (bundle.abstention.n_train, bundle.abstention.n_val) == (12, 12)
    assert set(bundle.operating_points) == {"red_tile", "green_tile"}
    for index, label in enumerate(LABELS[:2]):
        point = bundle.operating_points[label]
        assert point.specificity >= 0.5
        says_yes = served.probabilities(logits)[:, index] >= point.threshold
        assert says_yes[truth == index].mean() == point.sensitivity
        assert (~says_yes[truth != index]).mean() == point.specificity

    with files.quantization.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert [*row] == [
        *("remedy", "calibrator", "float_nodes", "agreement", "accuracy", "macro_f1", "sqnr_db"),
        *("size_bytes", "holds_bounds", "is_chosen"),
    ]
    assert row["remedy"] == "minmax"
    assert float(row["accuracy"]) == bundle.int8_path[0].metrics["accuracy"]
    assert row["is_chosen"] == row["holds_bounds"] == "True"
    assert int(row["size_bytes"]) == files.onnx_int8.stat().st_size
    text = files.candidate.read_text()
    assert str(files.root) not in text
    assert str(Path.home()) not in text


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_refitted_model_is_as_sure_as_the_network_before_the_refit(precision, project, files):
    meta, model, _ = load_float_model(files.float_dir)
    refitted = meta.model_copy(update={"is_refit": True})
    save_float_model(files.float_dir, refitted, model)
    with pytest.raises(BundleError, match="the network before the refit cannot be read"):
        export.run("tiny", params(), 7, project)
    assert not files.candidate.exists()

    before = refitted.build()
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in before.head.parameters():
            parameter.add_(torch.randn_like(parameter))
    save_float_model(files.float_dir, refitted, model, before.eval())
    asked = params(min_specificity=0.5, min_speedup=0.001 if precision == "int8" else 1000.0)
    export.run("tiny", asked, 7, project)
    bundle = read_bundle(files.candidate)
    assert bundle.provenance.is_refit
    assert bundle.served.precision == precision
    if precision == "int8":
        val_split = "the val split, which the refitted network was trained on (agreement"
        assert val_split in bundle.served.reason
    val = in_split(read_manifest(files.manifest), "val")
    truth = class_index_of(val, LABELS)
    served = Predictor.load(files.candidate)
    pixels = np.stack([served.pixels(files.raw_dir / entry.path) for entry in val])
    with torch.inference_mode():
        values = normalise(torch.from_numpy(pixels), refitted.mean, refitted.std)
        logits, own = before(values)[0].numpy(), model(values)[0].numpy()
    assert bundle.temperature == pytest.approx(fit_temperature(logits, truth), rel=1e-3)
    assert bundle.temperature != pytest.approx(fit_temperature(own, truth), rel=1e-2)
    probabilities = softmax(logits, bundle.temperature)
    for index, label in enumerate(LABELS[:2]):
        expected = operating_point(probabilities[:, index], truth == index, 0.5)
        assert bundle.operating_points[label].threshold == pytest.approx(
            expected.threshold, abs=1e-4
        )
    # The served file says what is out of distribution, from all that it was trained on.
    assert bundle.abstention is not None
    n_train = len(in_split(read_manifest(files.manifest), "train"))
    assert (bundle.abstention.n_train, bundle.abstention.n_val) == (n_train + len(val), len(val))


@pytest.mark.slow
def test_two_exports_are_the_same_bytes_and_bounds_decide_what_is_served(project, files):
    def written() -> dict[str, bytes]:
        paths = [*files.mobile_dir.iterdir(), files.quantization]
        return {path.name: path.read_bytes() for path in paths}

    export.run("tiny", params(), 7, project)
    first = written()
    export.run("tiny", params(), 7, project)
    assert written() == first
    assert set(first) == {
        "candidate.json",
        "model_fp32.onnx",
        "model_int8.onnx",
        "quantization.csv",
    }

    export.run("tiny", params(min_speedup=1000.0), 7, project)
    served = read_bundle(files.candidate).served
    assert served.precision == "fp32"
    assert "was not 1000 times as fast" in served.reason

    export.run("tiny", params(remedies=["weights"], min_speedup=1.0), 7, project)
    bundle = read_bundle(files.candidate)
    assert bundle.served.precision == "int8"
    assert bundle.served.reason.endswith(
        "runs fp32's operators on weights that are stored as bytes"
    )
    assert bundle.files["int8"].size_bytes < 0.4 * bundle.files["fp32"].size_bytes

    export.run("tiny", params(max_int8_bytes=1), 7, project)
    bundle = read_bundle(files.candidate)
    assert bundle.served.precision == "fp32"
    # What failed is named, and nothing else.
    assert re.search(r"; the best missed: [\d,]+ bytes \(bound 1\)$", bundle.served.reason)
    assert [c.remedy for c in bundle.int8_path] == ["minmax", "equalize"]
    assert sum(c.is_chosen for c in bundle.int8_path) == 1


def test_manifest_that_changed_after_training_is_leakage(project, files):
    entries = read_manifest(files.manifest)
    moved = [replace(entries[0], split="val" if entries[0].split != "val" else "train")]
    files.manifest.write_text(write_manifest([*moved, *entries[1:]]))
    with pytest.raises(LeakageError, match="is not the one that the model was trained with"):
        export.run("tiny", params(), 7, project)
    assert not files.candidate.exists()


def test_before_training_the_command_is_named(project, files):
    files.float_meta.unlink()
    with pytest.raises(MissingDataError, match="Run `fieldlens train tiny` first"):
        export.run("tiny", params(), 7, project)


def test_damaged_float_model_is_not_exported(project, files):
    document = json.loads(files.float_meta.read_text())
    files.float_meta.write_text(json.dumps({**document, "labels": ["a", "b"]}))
    with pytest.raises(BundleError, match="the float model cannot be read"):
        export.run("tiny", params(), 7, project)

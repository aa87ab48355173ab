"""A backbone is one entry: train, export, evaluate, the apps and the phone page know nothing of it
but its name.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from apps.inference import answer_picture
from apps.models import Model, load_model
from pipelines.backbones.folding import batch_norms_of
from pipelines.backbones.heads import make_classifier
from pipelines.backbones.spec import Backbone, BackboneSpec, backbone, backbones
from pipelines.backbones.weights import LocalFile
from pipelines.config.evaluate import EvaluateParams
from pipelines.config.export import ExportParams
from pipelines.config.train import TrainParams
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import read_bundle
from pipelines.stages import evaluate, export, train
from pipelines.training.float_model import load_float_model
from pipelines.training.job import normalise
from tests.backbones.names import NAMES
from tests.backbones.test_contract import UNFOLDED
from tests.backbones.toy_family import toy
from tests.stages.test_export import CARD
from tests.tiny_network import as_trained, pictures
from tests.tiny_params import PARAMS, PHASE
from tests.vitest import vitest

LABELS = ["red_tile", "green_tile", "blue_tile"]
#: Twelve pictures, six a step: two steps.
ONE = {**PHASE, "epochs": 1, "warmup_fraction": 0.0}
PX = 64
TRAIN = {
    **PARAMS,
    "weights": "imagenet",
    "image_px": PX,
    "views": 1,
    "batch_size": 6,
    "calibration_images": 12,
    # So high that answers differ from picture to picture.
    "head_phase": {**ONE, "learning_rate": 0.1},
    "tail_phase": ONE,
}
#: How good int8 is can be asked of a trained network alone.
EXPORT = {
    "calibration_images": 12,
    "remedies": ["float_stem+equalize+round+exact"],
    "min_agreement": 0.0,
    "max_accuracy_drop": 1.0,
    "max_macro_f1_drop": 1.0,
    "max_int8_bytes": 10**8,
    "min_speedup": 0.001,
    "acceptance": 0.95,
}
#: Deep ones of drawn weights may be certain of one label, by the kernel of the matrix product.
VARIED = {"toy", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small"}
#: What stands behind the pool, and what the last convolution with a kernel reads.
N_EMBEDDED = {"toy": 20 + 24}
CASES = [
    pytest.param((name, strategy), id=f"{name}-{strategy}", marks=pytest.mark.slow)
    for name in NAMES
    for strategy in ("cached", "full")
]


class Made:
    """What the stages have made of a name, at its narrowest width."""

    def __init__(self, name: str, strategy: str, spec: Backbone, files: TaskPaths) -> None:
        self.name, self.strategy, self.spec, self.files = name, strategy, spec, files

    def app(self, patch: pytest.MonkeyPatch) -> Model:
        """As an app loads it."""
        patch.setenv("FIELDLENS_ROOT", str(self.files.root))
        patch.delenv("FIELDLENS_MODELS_ROOT", raising=False)
        return load_model("tiny")


def with_weights(name: str, folder: Path) -> BackboneSpec:
    """The entry with weights in a folder, as if somebody had trained it."""
    spec = backbones()[name]
    width = min(spec.widths)
    model = make_classifier(
        name, width, n_classes=len(LABELS), hidden=(), dropout=0.0, cut=None, seed=1
    )
    as_trained(model, pictures(32, 1, PX))
    data = save({f"net.{key}": value for key, value in model.blocks.state_dict().items()})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "own.safetensors").write_bytes(data)
    weights = LocalFile("own.safetensors", hashlib.sha256(data).hexdigest(), "net", "MIT")
    return replace(spec, widths={width: replace(spec.widths[width], weights=(weights,))})


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory, _tiny_template: Paths) -> Iterator[Made]:
    name, strategy = request.param
    root = tmp_path_factory.mktemp(name) / "project"
    paths = Paths(shutil.copytree(_tiny_template.root, root))
    files = paths.task("tiny")
    files.card.write_text(CARD)
    files.prepare_summary.write_text(json.dumps({"labels": LABELS, "data_source": "sample"}))
    shutil.rmtree(files.mobile_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLENS_WORKERS", "1")
        patch.setenv("FIELDLENS_TRACKING", "off")
        patch.setitem(backbones(), "toy", toy(paths.weights_dir))
        entry = with_weights(name, paths.weights_dir)
        patch.setitem(backbones(), name, entry)
        spec = backbone(name, min(entry.widths))
        asked = {
            "backbone": name,
            "width": spec.width,
            "strategy": strategy,
            "int8_views": 0.5 if (name, strategy) == ("toy", "cached") else 0.0,
        }
        train.run("tiny", "reference", TrainParams.model_validate({**TRAIN, **asked}), 7, paths)
        export.run("tiny", ExportParams.model_validate(EXPORT), 7, paths)
        evaluate.run("tiny", EvaluateParams(calibration_bins=5, resamples=100), 7, paths)
        yield Made(name, strategy, spec, files)
    torch.use_deterministic_algorithms(False)
    # Dozens of networks, a hundred MB each.
    shutil.rmtree(root)


def test_from_its_name_to_an_answer_in_the_app(made, monkeypatch):
    files, expected = made.files, made.spec.input
    meta, model, _ = load_float_model(files.float_dir)
    assert (meta.backbone, meta.width) == (made.name, made.spec.width)
    assert (meta.mean, meta.std, meta.strategy) == (expected.mean, expected.std, made.strategy)
    assert meta.is_folded
    assert meta.unfolded == batch_norms_of(model)
    assert len(meta.unfolded) == UNFOLDED.get(made.name, 0)
    assert meta.weights_licence == "MIT"
    with files.history.open(encoding="utf-8", newline="") as lines:
        assert [row["phase"] for row in csv.DictReader(lines)] == ["head", "tail"]

    # `export` has held the float file against torch, normalisation included.
    bundle = read_bundle(files.bundle)
    assert bundle.served.precision == "int8", bundle.served.reason
    assert bundle.preprocess.build() == meta.preprocess
    assert bundle.preprocess.interpolation == expected.interpolation
    n_embedded = bundle.output("embedding").shape[1]
    assert n_embedded == N_EMBEDDED.get(made.name, n_embedded) >= made.spec.n_features

    app = made.app(monkeypatch)
    with files.predictions.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 36
    shots = [
        answer_picture(app, files.raw_dir / row["path"], key=row["path"], name=row["path"])
        for row in rows
    ]
    for row, shot in zip(rows, shots, strict=True):
        assert shot.main.label == row["int8_answer"]
        for label, probability in shot.main.probabilities.items():
            assert float(row[f"int8_{label}"]) == pytest.approx(probability, abs=1e-6)
    values = normalise(torch.from_numpy(np.stack([s.pixels for s in shots])), meta.mean, meta.std)
    with torch.inference_mode():
        labels = [LABELS[index] for index in model(values)[0].argmax(dim=1)]
    alike = [
        [row[f"{precision}_answer"] == label for row, label in zip(rows, labels, strict=True)]
        for precision in ("fp32", "int8")
    ]
    # Of int8 that can be asked of a trained network alone; the toy is one.
    assert np.mean(alike[0]) > 0.95
    assert np.mean(alike[1]) >= (0.9 if made.name == "toy" else 0)


def test_the_phone_page_gives_the_apps_answers(made, tmp_path, monkeypatch):
    """In Node: the page's reader, resampler, runtime and decoding, without a browser."""
    app = made.app(monkeypatch)
    pictures_of_test = sorted(made.files.raw_dir.rglob("test_*.png"))[::5]
    said = [app.predictor().predict(picture) for picture in pictures_of_test]
    # Else another picture's answer would do as well.
    spread = np.ptp([list(answer.probabilities.values()) for answer in said], axis=0).max()
    assert spread > 0.04 or made.name not in VARIED
    answers = [
        {
            "picture": str(picture),
            "label": answer.label,
            "probabilities": answer.probabilities,
            "ood_score": answer.ood_score,
            "is_ood": answer.is_ood,
        }
        for picture, answer in zip(pictures_of_test, said, strict=True)
    ]
    (made.files.mobile_dir / "answers.json").write_text(json.dumps(answers))
    asked = {
        "FIELDLENS_BUNDLE": made.files.mobile_dir,
        "FIELDLENS_EXACT": int(made.name == "mobilenet_v2"),
    }
    passed = vitest(tmp_path, "tests/bundles.test.ts", **asked)
    assert passed == ["gives the predictor's answers"]

"""A segmentation goes through every stage, and is what its files say it is."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from pipelines import cli
from pipelines.data.manifest import in_split, read_manifest
from pipelines.kinds.segmentation.masks import MaskFile, read_mask
from pipelines.metrics.segmentation import boundary_f1, dice, iou
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.segmentation import Mask
from tests.kinds.segmentation import spots
from tests.tiny_params import PARAMS

pytestmark = pytest.mark.slow


def run(paths: Paths, verb: str, *arguments: str) -> int:
    return cli.main([verb, *arguments, "--root", str(paths.root)])


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Paths:
    """A project in which every stage has run."""
    paths = spots.project(tmp_path_factory.mktemp("masks") / "project", 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLENS_TRACKING", "off")
        for verb in ("prepare", "audit", "train", "export", "evaluate", "gate"):
            assert run(paths, verb, spots.TASK) == 0
        assert run(paths, "report") == 0
    return paths


@pytest.fixture(scope="module")
def metrics(made) -> dict:
    return json.loads(made.task(spots.TASK).metrics.read_text(encoding="utf-8"))


def test_it_has_learned_where_spots_are(made, metrics):
    assert metrics["fp32"]["dice"] > max(metrics["blind"].values()) + 0.1
    found = metrics["intervals"]["fp32"]["dice"]
    assert found["low"] <= metrics["fp32"]["dice"] <= found["high"]
    assert found["value"] == pytest.approx(metrics["fp32"]["dice"], abs=1e-6)
    assert metrics["paired"]["dice_drop"]["value"] == pytest.approx(
        metrics["fp32"]["dice"] - metrics["int8"]["dice"], abs=2e-6
    )
    assert 0 <= metrics["blind"]["centred_ellipse"] < metrics["blind"]["mean_mask"] + 0.5
    of = metrics["fp32"]
    assert of["dice_p05"] <= of["dice_p25"] <= of["dice_median"] <= of["dice_p75"]


def test_metrics_are_those_of_the_masks_that_predict_draws(made, tmp_path):
    """Worked out again, from PNG files and with nothing that `evaluate` uses but the formulas."""
    files = made.task(spots.TASK)
    test = in_split(read_manifest(files.manifest), "test")
    paths = [str(files.raw_dir / entry.path) for entry in test]
    assert run(made, "predict", *paths, "--drawings", str(tmp_path / "out")) == 0
    reached = []
    for entry in test:
        drawn = Image.open(tmp_path / "out" / f"{Path(entry.path).stem}.png")
        assert (drawn.mode, drawn.size) == ("P", (spots.WIDTH_PX, spots.HEIGHT_PX))
        found = np.asarray(drawn) == 1
        data = (files.raw_dir / MaskFile.of(entry.truth).path).read_bytes()
        true = read_mask(data, entry.path, spots.LABELS) == 1
        reached.append(
            (float(dice(found, true)), float(iou(found, true)), boundary_f1(found, true))
        )
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    of = metrics[metrics["served"]]
    expected = [of[name] for name in ("dice", "iou", "boundary_f1")]
    assert np.mean(reached, axis=0) == pytest.approx(expected, abs=1e-5)
    rows = list(csv.DictReader(io.StringIO(files.predictions.read_text(encoding="utf-8"))))
    assert [float(row["dice"]) for row in rows] == pytest.approx(
        [d for d, _, _ in reached], abs=1e-5
    )


def test_bundle_says_what_it_is(made):
    files = made.task(spots.TASK)
    bundle = read_bundle(files.bundle)
    assert (bundle.kind, bundle.labels) == ("segmentation", spots.LABELS)
    assert [output.name for output in bundle.outputs] == ["mask", "embedding"]
    assert bundle.outputs[0].shape == (-1, 1, 64, 64)
    assert 0.05 <= bundle.operating_points["spot"].threshold <= 0.95
    assert (bundle.audit.metric, bundle.audit.constant) == ("dice", "mean mask")
    page = made.results_page.read_text(encoding="utf-8")
    assert "| Dice |" in page
    assert "Blind Dice" in page
    assert "Thresholds of masks" in page
    assert "Operating points" not in page


def test_enlarging_and_sigmoid_are_not_quantised(made):
    files = made.task(spots.TASK)
    graph = onnx.load(files.onnx_int8).graph
    assert Counter(node.op_type for node in graph.node)["QuantizeLinear"] > 10
    writer = {name: node for node in graph.node for name in node.output}
    sigmoid = writer["mask"]
    resize = writer[sigmoid.input[0]]
    assert (sigmoid.op_type, resize.op_type) == ("Sigmoid", "Resize")
    readers = [node.op_type for node in graph.node if resize.output[0] in node.input]
    assert readers == ["Sigmoid"]


def test_history_and_figures_are_of_the_kind(made):
    files = made.task(spots.TASK)
    history = list(csv.DictReader(io.StringIO(files.history.read_text(encoding="utf-8"))))
    assert [row["phase"] for row in history] == ["head"] * 30 + ["tail"]
    assert max(float(row["val_dice"]) for row in history) > float(history[0]["val_dice"])
    for folder, names in (
        (files.training_figures_dir, {"curves.png", "val_samples.png"}),
        (files.test_figures_dir, {"test_samples.png", "dice_histogram.png"}),
    ):
        assert {path.name for path in folder.iterdir()} == names


def test_answer_is_in_px_of_the_picture(made, tmp_path, capsys):
    files = made.task(spots.TASK)
    entry = next(
        each for each in read_manifest(files.manifest) if MaskFile.of(each.truth).size == "large"
    )
    picture = Image.open(files.raw_dir / entry.path).convert("RGB")
    # Twelve megapixels, and a phone that was held the other way.
    large, turned, exif = tmp_path / "large.png", tmp_path / "turned.jpg", Image.Exif()
    times = 66
    picture.resize(
        (times * spots.WIDTH_PX, times * spots.HEIGHT_PX), Image.Resampling.BICUBIC
    ).save(large, compress_level=1)
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=95)
    paths = [str(files.raw_dir / entry.path), str(large), str(turned)]
    assert run(made, "predict", *paths, "--json") == 0
    small, wide, upright = (
        image["regions"]["spot"] for image in json.loads(capsys.readouterr().out)["images"]
    )
    assert small["box_px"] is not None
    assert np.array(wide["box_px"]) / times == pytest.approx(small["box_px"], abs=1.5)
    assert np.array(upright["box_px"]) == pytest.approx(small["box_px"], abs=1.5)
    assert wide["area_px"] / times**2 == pytest.approx(small["area_px"], rel=0.1)
    predictor: Predictor[Mask] = Predictor.load(files.bundle)
    assert predictor.predict(turned).drawn(picture.size).shape == picture.size[::-1]


def test_long_pictures_are_answered_in_their_own_px(made):
    predictor: Predictor[Mask] = Predictor.load(made.task(spots.TASK).bundle)
    for size in ((900, 60), (60, 900)):
        drawn = predictor.predict(Image.new("RGB", size, (60, 60, 60))).drawn(size)
        assert drawn.shape == size[::-1]


@pytest.mark.parametrize("verb", ["explain"])
def test_what_no_mask_answers_is_refused_in_one_line(made, verb, capsys):
    picture = str(made.task(spots.TASK).raw_dir / "images/01.png")
    assert run(made, verb, picture) == 2
    assert "of the kind segmentation the mask itself says" in capsys.readouterr().err


def test_two_drawings_of_one_name_are_refused_before_any_is_written(made, tmp_path, capsys):
    raw, other = made.task(spots.TASK).raw_dir, tmp_path / "other"
    other.mkdir()
    shutil.copy(raw / "images/01.png", other / "01.png")
    out = tmp_path / "out"
    pictures = (str(raw / "images/01.png"), str(other / "01.png"))
    assert run(made, "predict", *pictures, "--drawings", str(out)) == 2
    assert "would both be written as 01.png" in capsys.readouterr().err
    assert not out.exists()


def test_a_training_through_every_layer_takes_the_same_masks(made, tmp_path):
    paths = Paths(Path(shutil.copytree(made.root, tmp_path / "project")))
    document = json.loads(paths.params.read_text(encoding="utf-8"))
    train = document["tasks"][spots.TASK]["train"]
    train |= {"strategy": "full", "cut": 0}
    train["head_phase"] |= {"epochs": 1, "learning_rate": 0.01}
    train["tail_phase"] |= {"epochs": 2, "learning_rate": 0.01}
    paths.params.write_text(json.dumps(document), encoding="utf-8")
    assert run(paths, "train", spots.TASK) == 0
    text = paths.task(spots.TASK).history.read_text(encoding="utf-8")
    losses = [float(row["train_loss"]) for row in csv.DictReader(io.StringIO(text))]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_smoothing": 0.1}, "label_smoothing: a segmentation has none"),
        ({"balance": "class_weights"}, "balance: a segmentation has none"),
        ({"head": {"hidden": [8, 8], "dropout": 0.0}}, "hidden: a head of masks has one width"),
        ({"monitor": "val_macro_f1"}, "monitor: expected one of val_loss, val_dice"),
        ({"cut": 12}, "expected a cut from 0 to"),
        (
            {"augment": {**PARAMS["augment"], "background": 0.3}},
            "background: would paint over what a mask shows",
        ),
    ],
)
def test_params_that_no_mask_has_are_refused(made, tmp_path, changes, message, capsys):
    paths = Paths(Path(shutil.copytree(made.root, tmp_path / "project")))
    document = json.loads(paths.params.read_text(encoding="utf-8"))
    document["tasks"][spots.TASK]["train"] |= changes
    paths.params.write_text(json.dumps(document), encoding="utf-8")
    assert run(paths, "train", spots.TASK) == 2
    assert message in capsys.readouterr().err

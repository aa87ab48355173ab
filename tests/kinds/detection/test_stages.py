"""A detection goes through every stage and command: painted sites, tiny, from nothing."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.data.manifest import read_manifest
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.vetting import vet
from tests.processes import ROOT
from tests.tiny_params import PARAMS, PHASE

TASK = "hard_hat"
SECTION = {
    "domain": "safety",
    "fetch": {"source": {"kind": "sample", "images_per_class": 20, "side_px": 96}},
    "prepare": {
        **{"val_fraction": 0.2, "test_fraction": 0.2, "near_duplicate_bits": 4},
        **{"max_quarantine_fraction": 0.2, "min_side_px": 16},
    },
    "audit": {
        "folds": 2,
        "suspicious_share": 0.3,
        "shortcut_share": 0.6,
        "accepted": "Only a toy.",
    },
    "train": {
        **PARAMS,
        **{"image_px": 96, "crop_fraction": 1.0, "view": {"whole": True}, "monitor": "val_ap50"},
        "head_phase": {**PHASE, "epochs": 1},
        "tail_phase": {**PHASE, "epochs": 6},
    },
    "export": {
        **{"calibration_images": 8, "remedies": ["minmax"], "min_agreement": 0.0},
        **{"max_int8_bytes": 10**7, "min_speedup": 1e-6, "acceptance": 0.9},
    },
    "evaluate": {"calibration_bins": 5, "resamples": 100},
    "gate": {
        "max_int8_bytes": 10**7,
        "demands": [{"metric": "served.ap50", "at_least": 0.0}],
    },
}


def run(paths: Paths, verb: str, *arguments: str) -> int:
    return cli.main([verb, *arguments, "--root", str(paths.root)])


def write(paths: Paths, section: dict) -> None:
    # JSON is YAML 1.2.
    paths.params.write_text(json.dumps({"seed": 5, "tasks": {TASK: section}}), encoding="utf-8")


def n_boxes(metrics: dict) -> int:
    return sum(each["n"] for each in metrics["int8"]["per_label"].values())


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Paths:
    """A project in which every stage has run: a minute."""
    paths = Paths(tmp_path_factory.mktemp("boxes") / "project")
    files = paths.task(TASK)
    files.card.parent.mkdir(parents=True)
    shutil.copyfile(ROOT / f"datasets/{TASK}/card.yaml", files.card)
    write(paths, SECTION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLENS_TRACKING", "off")
        for verb in ("fetch", "prepare", "audit", "train", "export", "evaluate", "gate"):
            assert run(paths, verb, TASK) == 0
        assert run(paths, "report") == 0
    return paths


@pytest.mark.slow
def test_what_stages_write_says_what_it_is(made):
    files = made.task(TASK)
    entries = read_manifest(files.manifest)
    assert {entry.split for entry in entries} == {"train", "val", "test"}
    assert len({(entry.group, entry.split) for entry in entries}) == len({e.group for e in entries})
    bundle = read_bundle(files.bundle)
    assert bundle.kind == "detection"
    assert [output.name for output in bundle.outputs] == ["boxes", "embedding"]
    assert bundle.preprocess.whole
    assert bundle.audit.metric == "presence"
    for artefact in bundle.artefacts:
        vet((files.mobile_dir / artefact.name).read_bytes())
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    of = metrics["intervals"]["int8"]
    assert set(of) >= {"ap", "ap50", "presence", "counting_error", "ap50.helmet"}
    assert set(of) >= {"ap.small", "counting_error.helmet"}
    by_size = metrics["int8"]["by_size"]
    assert sum(each["n"] for each in by_size.values()) == n_boxes(metrics)
    assert by_size["large"] == {"ap": None, "n": 0}
    for name in ("ap50", "ap", "counting_error"):
        assert of[name]["low"] <= of[name]["value"] <= of[name]["high"]
        assert of[name]["value"] == pytest.approx(metrics["int8"][name], abs=2e-6)
    assert set(metrics["paired"]) >= {"ap50_drop", "presence_drop", "agreement"}
    assert 0 <= metrics["blind"]["ap50"] < 0.5
    rows = list(csv.DictReader(io.StringIO(files.confusion.read_text(encoding="utf-8"))))
    n_true = sum(row["actual"] != "nothing" for row in rows)
    assert n_true == n_boxes(metrics)
    sheet = Image.open(files.test_figures_dir / "boxes.png")
    assert sheet.width > 1000
    assert "| AP50 |" in made.results_page.read_text(encoding="utf-8")


@pytest.mark.slow
def test_training_learns(made):
    files = made.task(TASK)
    history = list(csv.DictReader(io.StringIO(files.history.read_text(encoding="utf-8"))))
    losses = [float(row["train_loss"]) for row in history]
    assert min(losses) < 0.9 * losses[0]


@pytest.mark.slow
def test_commands_print_boxes(made, capsys):
    files = made.task(TASK)
    picture = files.raw_dir / read_manifest(files.manifest)[0].path
    assert run(made, "predict", str(picture), "--json") == 0
    said = json.loads(capsys.readouterr().out)["images"][0]
    width, height = Predictor.load(files.bundle).open(picture).size
    assert list(said["counts"]) == ["helmet", "no_helmet", "no_wear", "wear"]
    corners = np.array([box["box"] for box in said["boxes"]])
    assert (corners >= 0).all()
    assert (corners <= [width, height, width, height]).all()
    scores = [box["score"] for box in said["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert run(made, "predict", str(picture)) == 0
    assert "found: helmet" in capsys.readouterr().out
    assert run(made, "predict", str(picture), "--csv") == 0
    header = capsys.readouterr().out.splitlines()[0]
    assert header == "path,n_helmet,n_no_helmet,n_no_wear,n_wear,boxes,is_ood,error"


@pytest.mark.slow
def test_commands_of_trust_know_boxes(made, tmp_path, capsys):
    files = made.task(TASK)
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    served = metrics["served"]
    picture = files.raw_dir / read_manifest(files.manifest)[0].path
    out = tmp_path / "maps"
    assert run(made, "explain", str(picture), "--out", str(out)) == 0
    assert "the most certain box; " in capsys.readouterr().out
    assert [path.read_bytes()[:4] for path in out.iterdir()] == [b"\x89PNG"]
    assert run(made, "explain", str(picture), "--method", "gradcam") == 2
    assert "--method gradcam: is of scores of labels" in capsys.readouterr().err
    assert run(made, "stress", TASK) == 0
    assert "partner at IoU 0.5" in capsys.readouterr().out
    assert (
        run(
            made, "compare", TASK, TASK, *["--precision", "int8", "--precision-b", "fp32", "--json"]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)["metrics"]
    for name in ("ap", "ap50", "presence"):
        drop = metrics["paired"][f"{name}_drop"]["value"]
        assert found[name]["b_minus_a"]["value"] == pytest.approx(drop, abs=2e-6)
    # The folder itself, for a model that has come without its manifest.
    alone = Paths(tmp_path / "alone")
    shutil.copytree(made.root, alone.root)
    folder = str(shutil.move(alone.task(TASK).raw_dir, tmp_path / "site"))
    assert run(made, "validate", TASK, folder) == 2
    assert "none counts" in capsys.readouterr().err
    shutil.rmtree(alone.task(TASK).prepared_dir)
    assert run(alone, "validate", TASK, folder, "--json") == 0
    validation = json.loads(capsys.readouterr().out)
    assert validation["n_images"] > metrics["n_images"]
    assert set(validation["drops"]) >= {"ap", "ap50", "presence", "counting_error", "ap50.helmet"}
    assert validation["drops"]["ap50"]["internal"] == metrics["intervals"][served]["ap50"]
    assert (alone.task(TASK).external_dir / "site/boxes.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixup_alpha": 0.2}, "train.mixup_alpha: means nothing for boxes"),
        ({"balance": "class_weights"}, "train.balance: means nothing for boxes"),
        ({"head": {"hidden": [], "dropout": 0.2}}, "a detection's head has its own layers"),
        ({"monitor": "val_macro_f1"}, "train.monitor: expected one of val_loss, val_ap50"),
        ({"crop_fraction": 0.875}, "crop_fraction must be 1"),
    ],
)
def test_params_that_mean_nothing_are_refused(changes, message, made, tmp_path, capsys):
    paths = Paths(shutil.copytree(made.root, tmp_path / "project"))
    write(paths, {**SECTION, "train": {**SECTION["train"], **changes}})
    assert run(paths, "train", TASK) == 2
    assert message in capsys.readouterr().err

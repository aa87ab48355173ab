"""`validate`, `compare`, `stress` and `explain` of masks, with a model that needs no training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines import cli
from pipelines.card import load_card
from pipelines.data.manifest import content_sha256, in_split, read_manifest
from pipelines.paths import Paths
from tests.kinds.segmentation import spots
from tests.kinds.segmentation.bright_net import write_bundle


def run(paths: Paths, verb: str, *arguments: object) -> int:
    return cli.main([verb, *map(str, arguments), "--root", str(paths.root)])


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Paths:
    paths = spots.project(tmp_path_factory.mktemp("verbs") / "project", 24)
    files = paths.task(spots.TASK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDLENS_TRACKING", "off")
        assert run(paths, "prepare", spots.TASK) == 0
        bundle = write_bundle(files, load_card(files.card))
        made_of = {"data_sha256": content_sha256(read_manifest(files.manifest))}
        provenance = bundle.provenance.model_copy(update=made_of)
        bundle = bundle.model_copy(update={"provenance": provenance})
        files.candidate.write_text(bundle.to_json(), encoding="utf-8")
        assert run(paths, "evaluate", spots.TASK) == 0
    return paths


@pytest.fixture
def project(template, tmp_path) -> Paths:
    return Paths(Path(shutil.copytree(template.root, tmp_path / "project")))


def elsewhere(project: Paths, folder: Path, change=lambda picture: picture) -> Path:
    """The test split as another maker's folder."""
    files = project.task(spots.TASK)
    rows = ["path,group"]
    for entry in in_split(read_manifest(files.manifest), "test"):
        for path in (entry.path, entry.path.replace("images", "masks")):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            change(Image.open(files.raw_dir / path)).save(folder / path)
        rows.append(f"{entry.path},{entry.group}")
    (folder / "records.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def validated(project: Paths, name: str) -> dict:
    path = project.task(spots.TASK).external_dir / name / "validation.json"
    return json.loads(path.read_text(encoding="utf-8"))


def test_figures_are_those_of_evaluate_on_the_same_pictures(project, tmp_path, capsys):
    files = project.task(spots.TASK)
    folder = elsewhere(project, tmp_path / "clinic")
    # What is known is no news; a bundle that travels without its manifest cannot know.
    assert run(project, "validate", spots.TASK, folder) == 2
    assert "none counts" in capsys.readouterr().err
    files.manifest.unlink()
    assert run(project, "validate", spots.TASK, folder) == 0
    said, found = capsys.readouterr().out, validated(project, "clinic")
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    served = metrics["served"]
    for name in ("dice", "iou", "boundary_f1", "dice.spot"):
        assert found["intervals"][name]["value"] == metrics["intervals"][served][name]["value"]
        assert found["drops"][name]["drop"]["value"] == 0
    assert (found["kind"], found["metrics"]["dice"]) == ("segmentation", metrics[served]["dice"])
    # The train split tells what is reached without a look, and it is not here.
    assert found["metrics"]["blind"] == {}
    assert "No blind baseline is known here." in said
    assert "Groups are few (" in said
    for name in ("test_samples.png", "predictions.csv", "validation.html"):
        assert (files.external_dir / "clinic" / name).is_file()


def test_mirrored_pictures_are_news_and_the_page_has_them(project, tmp_path, capsys):
    folder = elsewhere(project, tmp_path / "mirror", ImageOps.mirror)
    assert run(project, "validate", spots.TASK, folder, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["set_aside"] == []
    assert 0 < found["metrics"]["blind"]["mean_mask"] < found["metrics"]["dice"]
    page = (project.task(spots.TASK).external_dir / "mirror/validation.html").read_text("utf-8")
    assert "Dice" in page
    assert "Macro-F1" not in page
    assert run(project, "report") == 0
    assert "| spots | mirror |" in project.results_page.read_text(encoding="utf-8")


def test_other_masks_than_the_models_are_refused_in_one_line(project, tmp_path, capsys):
    folder = elsewhere(project, tmp_path / "odd")
    for path in sorted((folder / "masks").iterdir()):
        Image.fromarray(np.asarray(Image.open(path)) // 255 * 7).save(path)
    assert run(project, "validate", spots.TASK, folder) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not project.task(spots.TASK).external_dir.exists()


def test_masks_stay_where_a_change_has_moved_them(project, capsys):
    text = json.loads(project.params.read_text(encoding="utf-8"))
    text["tasks"][spots.TASK]["train"]["augment"]["horizontal_flip"] = True
    text["tasks"][spots.TASK]["evaluate"]["max_changed"] = {"flip": 0.2, "brightness": 0.0}
    project.params.write_text(json.dumps(text), encoding="utf-8")
    # Brightness moves a mask's edge, and the bound is nothing.
    assert run(project, "stress", spots.TASK) == 3
    said = capsys.readouterr()
    _, words, _, *rows = said.out.splitlines()
    assert "IoU" in words
    share = {row[:20].strip(): float(row.split()[-3]) for row in rows}
    assert len(share) == 9
    assert share["mirrored"] < 0.2
    assert 0 < share["brightness x 0.9"] < 0.3
    assert "spots: brightness x 0.9: " in said.err
    assert "mirrored" not in said.err


def test_compare_asks_both_models(project, tmp_path, capsys):
    files = project.task(spots.TASK)
    worse = Path(shutil.copytree(files.mobile_dir, tmp_path / "worse"))
    document = json.loads((worse / "bundle.json").read_text(encoding="utf-8"))
    point = {"min_specificity": 0.0, "sensitivity": 1, "specificity": 1, "threshold": 0.999}
    document["operating_points"] = {"spot": {**point, "n_positive": 1, "n_negative": 1}}
    (worse / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    assert run(project, "compare", worse, spots.TASK, "--json") == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    metrics = json.loads(files.metrics.read_text(encoding="utf-8"))
    for name, of in found.items():
        assert of["b"] == pytest.approx(metrics[metrics["served"]][name], abs=1e-6)
        assert of["b_minus_a"]["value"] == pytest.approx(of["b"] - of["a"], abs=2e-6)
    assert found["dice"]["b_minus_a"]["low"] > 0
    assert run(project, "compare", spots.TASK, worse) == 0
    assert "A is better in Dice" in capsys.readouterr().out
    assert run(project, "compare", spots.TASK, tmp_path) == 2
    assert "there is no bundle.json" in capsys.readouterr().err


def test_explain_says_what_to_do_instead(project, tmp_path, capsys):
    assert run(project, "explain", tmp_path / "x.png", "--task", spots.TASK) == 2
    assert "`fieldlens predict --drawings FOLDER`" in capsys.readouterr().err

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipelines import cli
from pipelines.data.manifest import read_manifest
from pipelines.paths import Paths
from pipelines.serving.bundle import read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.trust import Interval
from pipelines.validation.external import difference
from tests.file_tree import file_tree
from tests.html_pages import Wellformed
from tests.tiny_params import params_of
from tests.toy_card import CARD

LABELS = ("red_tile", "green_tile", "blue_tile")
#: What a folder from elsewhere calls the classes.
FOLDERS = {"red_tile": "Rot", "green_tile": "Gruen", "blue_tile": "Blau"}


@pytest.fixture
def project(tested_project: Paths) -> Paths:
    """The tiny project after `evaluate`, with params.yaml and a card of one class more."""
    params = params_of("cats_dogs", "tiny")
    for slow, quick in (("resamples: 2000", "resamples: 200"), ("folds: 5", "folds: 2")):
        assert slow in params
        params = params.replace(slow, quick)
    tested_project.params.write_text(params, encoding="utf-8")
    card = re.sub(r"label: (\w+)", r"label: \1_tile", CARD.format(task="tiny", title="Tiny tiles"))
    more = "\n  - {label: mauve_tile, meaning: Mauve on the whole.}\nunit_of_observation:"
    tested_project.task("tiny").card.write_text(card.replace("\nunit_of_observation:", more))
    return tested_project


def tile(label: str, rng: np.random.Generator, *, purity: float = 50, shade: float = 0):
    """A tile with a texture of its own, so that no two are near duplicates."""
    colour = rng.uniform(60, 160, size=3)
    colour[LABELS.index(label)] += purity
    coarse = Image.fromarray(rng.uniform(0, 60, size=(6, 6)).astype(np.uint8))
    texture = np.asarray(coarse.resize((40, 40), Image.Resampling.BICUBIC), dtype=float)[..., None]
    return Image.fromarray(np.clip(colour + texture - 30 + shade, 0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight new images a class, in folders with other names."""
    rng = np.random.default_rng(3)
    for label, name in FOLDERS.items():
        (tmp_path / "farm" / name).mkdir(parents=True)
        for shot in range(8):
            tile(label, rng).save(tmp_path / f"farm/{name}/{shot}.png")
    return tmp_path / "farm"


def validate(project: Paths, folder: Path, *arguments: object) -> int:
    words = ["validate", "tiny", str(folder), "--root", str(project.root)]
    return cli.main([*words, *map(str, arguments)])


def result(project: Paths, name: str = "farm") -> dict:
    path = project.task("tiny").external_dir / name / "validation.json"
    return json.loads(path.read_text(encoding="utf-8"))


def page(project: Paths, name: str = "farm") -> str:
    path = project.task("tiny").external_dir / name / "validation.html"
    return path.read_text(encoding="utf-8")


def test_validate_measures_what_the_predictor_answers(project, folder, capsys):
    before = file_tree(folder)
    assert validate(project, folder) == 0
    assert file_tree(folder) == before
    found = result(project)
    predictor = Predictor.load(project.task("tiny").bundle)
    right = [
        predictor.predict(path).label == label
        for label, name in FOLDERS.items()
        for path in (folder / name).iterdir()
    ]
    accuracy = found["intervals"]["accuracy"]
    assert accuracy["value"] == pytest.approx(np.mean(right), abs=1e-6)
    assert 0.3 < accuracy["value"] < 1
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert found["n_images"] == found["n_groups"] == 24
    assert found["set_aside"] == []
    assert found["folder"] == "farm"
    assert found["duplicates_sought"] == "exact and near duplicates of all 60 images of the project"
    bundle = read_bundle(project.task("tiny").bundle)
    drop = found["drops"]["accuracy"]
    assert drop["internal"] == bundle.intervals["int8"]["accuracy"].model_dump()
    assert drop["drop"]["value"] == pytest.approx(
        drop["internal"]["value"] - accuracy["value"], abs=2e-6
    )
    out = capsys.readouterr().out
    assert re.search(r"^all +24 +24 +- +-$", out, re.MULTILINE)
    assert "This model has seen synthetic sample images only" in out
    assert f"{accuracy['value']:.3f} ({accuracy['low']:.3f} to" in out
    assert "Set aside: nothing" in out


def test_validate_page_is_whole_and_loads_nothing(project, folder):
    odd = folder / "Rot/<script>alert(1)<.png"
    odd.write_bytes(b"no picture")
    assert validate(project, folder) == 0
    text = page(project)
    parsed = Wellformed()
    parsed.feed(text)
    assert parsed.open == parsed.addresses == []
    assert "<script" not in text
    for words in ("width=device-width", "synthetic sample images", "In short"):
        assert words in text
    assert str(project.root) not in text
    assert str(folder.parent) not in json.dumps(result(project))


def test_validate_twice_gives_the_same_bytes_and_answers_that_can_be_compared(project, folder):
    found = []
    for _ in range(2):
        assert validate(project, folder) == 0
        found.append(file_tree(project.task("tiny").external_dir))
    assert found[0] == found[1]
    names = ("predictions.csv", "validation.html", "validation.json")
    assert sorted(found[0]) == [f"farm/{name}" for name in names]
    target = project.task("tiny").external_dir / "farm"
    assert cli.main(["compare", str(target), str(target)]) == 0


def test_validate_sets_aside_what_is_no_news(project, folder):
    files = project.task("tiny")
    train, test = (
        next(e for e in read_manifest(files.manifest) if e.split == split and e.label == "red_tile")
        for split in ("train", "test")
    )
    shutil.copy(files.raw_dir / train.path, folder / "Rot/known.png")
    with Image.open(files.raw_dir / test.path) as image:
        image.resize((80, 88)).convert("RGB").save(folder / "Rot/again.jpg", quality=90)
    (folder / "Rot/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    Image.new("RGB", (8, 8)).save(folder / "Rot/tiny.png")
    shutil.copy(folder / "Blau/0.png", folder / "Blau/0 (copy).png")
    (folder / "mauve_tile").mkdir()
    Image.new("RGB", (50, 50)).save(folder / "mauve_tile/0.png")
    assert validate(project, folder) == 0
    found = result(project)
    kinds = {entry["path"]: entry["kind"] for entry in found["set_aside"]}
    assert kinds == {
        "Blau/0.png": "copy",  # the first by name, "0 (copy).png", is kept
        "Rot/again.jpg": "known",
        "Rot/broken.png": "refused",
        "Rot/known.png": "known",
        "Rot/tiny.png": "refused",
        "mauve_tile/0.png": "unknown_label",
    }
    reasons = {entry["path"]: entry["reason"] for entry in found["set_aside"]}
    assert reasons["Rot/known.png"] == f"the same bytes as {train.path!r} (train)"
    assert "near duplicate of 'red_tile/" in reasons["Rot/again.jpg"]
    assert found["n_images"] == 24
    assert found["n_found"] == 30


def test_validate_takes_groups_from_records_csv(project, folder):
    rows = [
        f"{name}/{shot}.png,{name},field {shot // 4}"
        for name in FOLDERS.values()
        for shot in range(8)
    ]
    (folder / "records.csv").write_text("path,label,group\n" + "\n".join(rows) + "\n")
    assert validate(project, folder) == 0
    found = result(project)
    assert found["n_groups"] == 2
    assert found["n_images"] == 24
    assert "2 groups are few" in page(project)


def test_validate_joins_near_duplicates_of_the_folder_into_one_group(project, folder):
    for shot in range(8):
        with Image.open(folder / f"Rot/{shot}.png") as image:
            image.save(folder / f"Rot/{shot}_again.bmp")
    assert validate(project, folder) == 0
    found = result(project)
    assert found["n_images"] == 32
    assert found["n_groups"] == 24


def test_validate_class_without_images_is_allowed_and_named(project, folder, capsys):
    shutil.rmtree(folder / "Blau")
    assert validate(project, folder) == 0
    found = result(project)
    assert found["absent_labels"] == ["blue_tile"]
    assert found["metrics"]["per_class"]["blue_tile"]["recall"] is None
    assert "recall.blue_tile" not in found["intervals"]
    assert "No image here is blue_tile" in page(project)
    assert "NaN" not in json.dumps(found)
    # One class alone has no blind baseline.
    shutil.rmtree(folder / "Gruen")
    assert validate(project, folder) == 0
    assert result(project)["blind"] == []
    assert "nothing to tell apart" in result(project)["blind_missing"]
    assert "No blind baseline" in capsys.readouterr().out


def test_validate_finds_a_folder_that_gives_its_labels_away(project, folder):
    # Each class in another size: the file alone says the label.
    for number, name in enumerate(FOLDERS.values()):
        for path in (folder / name).iterdir():
            with Image.open(path) as image:
                side = 64 + 32 * number
                image.resize((side, side)).save(path)
    assert validate(project, folder) == 0
    blind = {entry["name"]: entry for entry in result(project)["blind"]}
    assert blind["file_facts"]["macro_f1"]["value"] == 1
    assert blind["file_facts"]["decides"]
    assert "The folder gives its labels away" in page(project)


def test_validate_says_that_the_figure_falls(project, tmp_path, capsys):
    rng = np.random.default_rng(1)
    for label in LABELS:
        (tmp_path / "far" / label).mkdir(parents=True)
        for shot in range(30):
            # Labels that the picture does not show: the model can only guess.
            tile(LABELS[rng.integers(3)], rng).save(tmp_path / f"far/{label}/{shot}.png")
    assert validate(project, tmp_path / "far", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    drop = found["drops"]["accuracy"]
    assert drop["drop"]["low"] > 0
    assert not drop["do_intervals_overlap"]
    assert "The internal figure does not hold" in page(project, "far")


def test_validate_without_the_projects_images_says_how_far_it_looked(project, folder):
    shutil.rmtree(project.task("tiny").raw_dir)
    assert validate(project, folder) == 0
    assert result(project)["duplicates_sought"].startswith("exact copies only")
    project.task("tiny").manifest.unlink()
    assert validate(project, folder) == 0
    assert result(project)["duplicates_sought"].startswith("not at all")


def test_validate_writes_where_it_is_told_but_never_into_the_folder(
    project, folder, tmp_path, capsys
):
    for out in (folder, folder / "report", folder / "Rot/../x"):
        assert validate(project, folder, "--out", out) == 2
        assert "is only read" in capsys.readouterr().err
    assert not (folder / "report").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    assert validate(project, folder, "--out", tmp_path / "mine") == 0
    names = ["notes.txt", "predictions.csv", "validation.html", "validation.json"]
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == names


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "there is no such folder"),
        (lambda folder: (folder / "Rot").rename(folder / "Oak"), "no class of the card is called"),
        (lambda folder: [shutil.rmtree(each) for each in folder.iterdir()], "no image was found"),
        (
            lambda folder: (folder / "records.csv").write_text(
                "path,label\nRot/0.png,Rot\nRot/0.png,Rot\n"
            ),
            "listed more than once",
        ),
        (
            lambda folder: [path.write_bytes(b"x") for path in folder.rglob("*.png")],
            "none counts (24 refused",
        ),
    ],
)
def test_validate_folder_that_cannot_be_used(project, folder, make, words, capsys):
    make(folder)
    assert validate(project, folder) == 2
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err
    assert not project.task("tiny").external_dir.exists()


def test_validate_needs_a_tested_bundle_of_the_task(project, folder, capsys):
    files = project.task("tiny")
    assert validate(project, folder, "--bundle", files.candidate) == 2
    assert "was not tested" in capsys.readouterr().err
    text = files.bundle.read_text()
    files.bundle.write_text(text.replace('"task": "tiny"', '"task": "other"'))
    assert validate(project, folder, "--bundle", files.mobile_dir) == 2
    assert "expected one of 'tiny'" in capsys.readouterr().err
    files.bundle.unlink()
    assert validate(project, folder) == 2
    assert "there is no bundle" in capsys.readouterr().err


def test_validate_takes_any_name_of_a_folder_and_a_phones_turned_pictures(project, folder):
    with Image.open(folder / "Rot/0.png") as image:
        exif = Image.Exif()
        exif[0x0112] = 6
        ImageOps.mirror(image).save(folder / "Rot/phone.jpg", exif=exif)
    (folder / "Rot/0.png").unlink()
    odd = folder.rename(folder.with_name("my farm (2024) <x>"))
    assert validate(project, odd) == 0
    found = result(project, "my_farm_2024_x_")
    assert (found["folder"], found["n_images"]) == ("my_farm_2024_x_", 24)


def test_difference_of_two_independent_figures():
    # Newcombe 1998, table II, case (a): 56/70 and 48/80, Wilson limits; method 10 without
    # continuity correction gives 0.0524 to 0.3339.
    a = Interval(value=56 / 70, low=0.6918, high=0.8770)
    b = Interval(value=48 / 80, low=0.4904, high=0.7004)
    found = difference(a, b)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-4)


def test_declared_folders_are_validated_and_stand_in_the_report(project, folder, capsys):
    declared = f"real:\n  tiny: {{validate_on: [{json.dumps(str(folder))}]}}\n"
    with project.params.open("a", encoding="utf-8") as stream:
        stream.write(declared)
    assert cli.main(["validate", "--root", str(project.root)]) == 0
    accuracy = result(project)["intervals"]["accuracy"]
    assert "on farm: 24 images" in capsys.readouterr().out
    assert cli.main(["report", "--root", str(project.root)]) == 0
    page = project.results_page.read_text(encoding="utf-8")
    rows = page.split("## External checks")[1].splitlines()
    row = next(line for line in rows if line.startswith("| tiny "))
    assert f"| farm | 24 | none | {accuracy['value']:.3f} (" in row
    # Of another model it is no news.
    path = project.task("tiny").external_dir / "farm/validation.json"
    path.write_text(re.sub(r'("model_sha256": ")\w{8}', r"\g<1>00000000", path.read_text()))
    assert cli.main(["report", "--root", str(project.root)]) == 0
    assert "External checks" not in project.results_page.read_text(encoding="utf-8")


def test_no_declared_folder_is_said(project, capsys):
    assert cli.main(["validate", "tiny", "--root", str(project.root)]) == 2
    assert "real.tiny.validate_on" in capsys.readouterr().err
    assert cli.main(["validate", "--root", str(project.root)]) == 0

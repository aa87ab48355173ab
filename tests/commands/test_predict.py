from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli, progress
from pipelines.commands.predict import OOD_WARNING, SAMPLE_WARNING, _meant_by
from pipelines.metrics.abstention import fit_abstention
from tests.processes import python


def predict(root: Path, *arguments: object) -> int:
    return cli.main(["predict", *map(str, arguments), "--root", str(root)])


def test_predict_shows_labels_latency_limits_and_the_sample_warning(
    toy_project, toy_bundle, colour_images, capsys
):
    assert predict(toy_project, colour_images["green"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert SAMPLE_WARNING in lines
    table = lines[lines.index(str(colour_images["green"])) + 1 :]
    assert table[0].split() == ["LABEL", "PROBABILITY", "MEANING"]
    assert table[1].split()[0] == "green"
    assert float(table[1].split()[1]) > 0.9
    assert "1 thread of" in out
    assert " ms" in out
    assert "Not for: anything else" in out
    # A width of 1 goes without saying, and a model of real images carries no warning.
    assert "(toy, mobilenet_v2, int8)" in lines[0]
    text = toy_bundle.read_text().replace('"data_source": "sample"', '"data_source": "folder"')
    text = text.replace('"backbone": "mobilenet_v2"', '"backbone": "mobilenet_v2", "width": 0.5')
    toy_bundle.write_text(text)
    assert predict(toy_project, colour_images["red"]) == 0
    out = capsys.readouterr().out
    assert SAMPLE_WARNING not in out
    assert "mobilenet_v2 x0.5, int8)" in out


def test_predict_says_when_it_does_not_know_the_kind_of_picture(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    # Known are greenish pictures; a black one is none of them.
    known = np.array([20, 230, 20]) / 255 * np.random.default_rng(0).uniform(0.7, 1.3, (60, 3))
    document = json.loads(toy_bundle.read_text())
    document["abstention"] = fit_abstention(known[:40], known[40:], 0.95).model_dump()
    shares = {"min_specificity": 0.9, "sensitivity": 0.8, "specificity": 0.9}
    point = {"threshold": 0.5, "n_positive": 5, "n_negative": 10, **shares}
    document["operating_points"] = {"green": point}
    toy_bundle.write_text(json.dumps(document))
    black = tmp_path / "black.png"
    Image.new("RGB", (20, 20)).save(black)
    assert predict(toy_project, colour_images["green"], black) == 0
    known_text, ood_text = capsys.readouterr().out.split(str(black))
    assert OOD_WARNING not in known_text
    known = r"A kind of picture that I know\. \(out-of-distribution score -?\d\.\d{3}, bound "
    assert re.search(known, known_text)
    assert "green: yes (yes from 0.500; on val that found 80% and said no to 90%" in known_text
    assert OOD_WARNING in ood_text
    assert "yes from" not in ood_text

    assert predict(toy_project, colour_images["green"], black, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["images"]
    assert (first["is_ood"], second["is_ood"]) == (False, True)
    assert first["ood_score"] < document["abstention"]["threshold"] < second["ood_score"]
    assert (first["positives"], second["positives"]) == ({"green": True}, {"green": False})


def test_predict_json_is_whole_and_in_order(toy_project, toy_bundle, colour_images, capsys):
    images = [colour_images["blue"], colour_images["red"], colour_images["blue"]]
    arguments = (*images, "--json", "--precision", "fp32", "--threads", 2)
    assert predict(toy_project, *arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert [image["path"] for image in document["images"]] == [str(image) for image in images]
    assert [image["label"] for image in document["images"]] == ["blue", "red", "blue"]
    assert document["precision"] == "fp32"
    assert document["n_threads"] == 2
    assert document["processor"]
    assert document["data_source"] == "sample"
    assert document["errors"] == []
    for image in document["images"]:
        assert sum(image["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert image["elapsed_ms"] > 0


def test_predict_one_bad_image_does_not_stop_the_others(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    bad = tmp_path / "no\nimage.jpg"
    bad.write_bytes(b"this is text")
    absent = tmp_path / "absent.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = (colour_images["red"], bad, absent, empty, colour_images["blue"], "--json")
    assert predict(toy_project, *arguments) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [image["label"] for image in document["images"]] == ["red", "blue"]
    assert [entry["path"] for entry in document["errors"]] == list(map(str, (bad, absent, empty)))
    lines = captured.err.splitlines()
    assert len(lines) == 3, "one line a bad image, a newline in the name included"
    assert "no\\nimage.jpg" in lines[0]
    assert "not an image of a known format" in lines[0]


def test_predict_folder_as_csv_has_a_row_a_file(toy_project, toy_bundle, tmp_path, capsys):
    folder = tmp_path / "photos"
    for number, colour in enumerate(("red", "lime", "blue")):
        (folder / f"plot {number}").mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(folder / f"plot {number}/a.png")
    (folder / "torn.jpg").write_bytes(b"this is text")
    for name in (".DS_Store", "._a.png", "Thumbs.db", "notes.txt"):
        (folder / name).write_bytes(b"x")
    assert predict(toy_project, folder, "--csv") == 2
    captured = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(captured.out)))
    shares = ["probability_red", "probability_green", "probability_blue"]
    assert list(rows[0]) == ["path", "label", *shares, "is_ood", "error"]
    assert [(row["path"], row["label"], row["is_ood"]) for row in rows] == [
        (str(folder / "plot 0/a.png"), "red", "false"),
        (str(folder / "plot 1/a.png"), "green", "false"),
        (str(folder / "plot 2/a.png"), "blue", "false"),
        (str(folder / "torn.jpg"), "", ""),
    ]
    for row in rows[:3]:
        assert sum(float(row[share]) for share in shares) == pytest.approx(1, abs=1e-5)
        assert row["error"] == ""
    assert [rows[3][share] for share in shares] == ["", "", ""]
    assert "not an image of a known format" in rows[3]["error"]
    complaint, note = captured.err.splitlines()
    assert "torn.jpg" in complaint
    assert note.startswith("fieldlens: passed over 4: ")
    assert "2 hidden" in note


def test_predict_passed_over_names_alone_are_no_failure(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert predict(toy_project, tmp_path / "*.png", tmp_path / ".*", "--json") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [Path(image["path"]).stem for image in document["images"]] == ["blue", "green", "red"]
    assert document["n_passed_over"] == {"hidden": 1}
    assert captured.err == "fieldlens: passed over 1: 1 hidden\n"


def test_predict_csv_holds_no_formula(
    toy_project, toy_bundle, colour_images, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    colour_images["red"].rename("=cmd().png")
    assert predict(toy_project.resolve(), "=cmd().png", "--csv") == 0
    assert next(csv.DictReader(io.StringIO(capsys.readouterr().out)))["path"] == "./=cmd().png"


def test_predict_many_tells_how_far_it_is(toy_project, toy_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_LOG_INTERVAL_S", 0.0)
    for number in range(25):
        Image.new("RGB", (20, 20), "red").save(tmp_path / f"{number:02}.png")
    assert predict(toy_project, tmp_path, "--csv") == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 26
    assert "toy: answering: 10 of 25" in captured.err


def test_predict_only_bad_images_gives_no_table(toy_project, toy_bundle, tmp_path, capsys):
    assert predict(toy_project, tmp_path / "absent.png") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--task: there are 2 models; expected one of other, toy."),
        (("--task", "third"), "no model of 'third'. Models: other, toy."),
        (("--task", "toy", "--bundle", "x"), "got both"),
        (("--bundle", "nowhere/bundle.json"), "there is no bundle"),
        (("--task", "toy", "--threads", "0"), "at least 1"),
    ],
)
def test_predict_asks_which_model_and_never_guesses(
    arguments, says, toy_project, toy_bundle, colour_images, capsys
):
    other = toy_project / "models/other/mobile"
    other.mkdir(parents=True)
    (other / "bundle.json").write_bytes(toy_bundle.read_bytes())
    assert predict(toy_project, colour_images["red"], *arguments) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_predict_no_model_yet_says_how_to_make_one(toy_project, colour_images, capsys):
    assert predict(toy_project, colour_images["red"]) == 2
    assert "make repro" in capsys.readouterr().err


def test_predict_bundle_by_path(toy_bundle, colour_images, tmp_path, capsys):
    for path in (toy_bundle.parent, toy_bundle):
        assert predict(tmp_path, colour_images["red"], "--bundle", path, "--json") == 0
        assert json.loads(capsys.readouterr().out)["task"] == "toy"


def test_predict_bundle_with_one_byte_changed_is_refused(
    toy_project, toy_bundle, colour_images, capsys
):
    model = toy_bundle.with_name("model_int8.onnx")
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    assert predict(toy_project, colour_images["red"]) == 2
    captured = capsys.readouterr()
    assert "not the one that the bundle names" in captured.err
    assert captured.out == ""


def test_predict_loads_no_torch_mlflow_or_dvc(toy_project, toy_bundle, colour_images):
    code = (
        "import sys\nfrom pipelines.cli import main\nassert main(sys.argv[1:]) == 0\n"
        "print(*{'torch', 'torchvision', 'mlflow', 'dvc', 'sklearn', 'cv2', 'pandas'}"
        " & set(sys.modules))"
    )
    said = python(code, "predict", colour_images["red"], "--root", toy_project)
    assert said.splitlines()[-1] == ""


def test_predict_shows_what_people_call_a_label(toy_project, toy_bundle, colour_images, capsys):
    document = json.loads(toy_bundle.read_text())
    toy_bundle.write_text(json.dumps(document | {"label_names": {"red": "红色"}}))
    assert predict(toy_project, colour_images["red"]) == 0
    assert "红色" in capsys.readouterr().out
    assert predict(toy_project, colour_images["red"], "--json") == 0
    image = json.loads(capsys.readouterr().out)["images"][0]
    assert (image["label"], image["name"]) == ("red", "红色")


# -- which files a command line means --------------------------------------------------------------
#: By name, what of it is passed over; None: nothing.
FILES = {
    "photos/a.jpg": None,
    "photos/b.PNG": None,
    "photos/deep/down/c.jpeg": None,
    "photos/odd[1].jpg": None,
    "photos/notes.txt": "other",
    "photos/records.csv": "table",
    "photos/.hidden.jpg": "hidden",
    "photos/._a.jpg": "hidden",
    "photos/@eaDir/a.jpg": "system",
    "photos/deep/Thumbs.db": "system",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str) -> list[str]:
    meant = _meant_by([Path(argument) for argument in arguments])
    assert meant.complaints == []
    return [file.as_posix() for file in meant.files]


def test_folder_is_looked_through_and_the_account_adds_up(tree):
    meant = _meant_by([Path("photos")])
    assert sorted(file.as_posix() for file in meant.files) == [
        *("photos/a.jpg", "photos/b.PNG", "photos/deep/down/c.jpeg", "photos/odd[1].jpg")
    ]
    passed = [kind for kind in FILES.values() if kind]
    assert meant.n_passed_over == {kind: passed.count(kind) for kind in passed}
    assert len(meant.files) + meant.n_passed_over.total() == len(FILES)
    assert meant.note.startswith("passed over 6: ")
    assert "2 hidden" in meant.note


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["photos/a.jpg", "photos/odd[1].jpg"]),
        ("photos/?.jpg", ["photos/a.jpg"]),
        ("photos/**/*.jp*g", ["photos/a.jpg", "photos/deep/down/c.jpeg", "photos/odd[1].jpg"]),
        ("**/c.jpeg", ["photos/deep/down/c.jpeg"]),
        # A folder that fits is a folder.
        ("photos/d*", ["photos/deep/down/c.jpeg"]),
        ("**/down", ["photos/deep/down/c.jpeg"]),
        # What exists under the very name is that.
        ("photos/odd[1].jpg", ["photos/odd[1].jpg"]),
    ],
)
def test_pattern(tree, pattern, expected):
    assert names(pattern) == expected
    assert names(str(tree / pattern)) == [str(tree / name) for name in expected]


def test_system_folders_are_passed_over_by_patterns_too(tree):
    meant = _meant_by([Path("photos/**/a.jpg")])
    assert [file.as_posix() for file in meant.files] == ["photos/a.jpg"]
    assert meant.n_passed_over == {"system": 1}


def test_file_that_is_named_is_taken_as_it_is(tree):
    assert names("photos/.hidden.jpg", "photos/notes.txt", "absent.jpg") == [
        *("photos/.hidden.jpg", "photos/notes.txt", "absent.jpg")
    ]


def test_each_file_once_in_the_order_of_the_arguments(tree):
    assert names("photos/b.PNG", "photos", "photos/*.jpg")[0] == "photos/b.PNG"
    assert len(names("photos/b.PNG", "photos", "photos/**/*")) == 4


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "links").mkdir()
    (tree / "links/one.jpg").symlink_to(tree / "photos/a.jpg")
    (tree / "links/round").symlink_to(tree / "links")
    for argument in ("links", "links/**/*.jpg", "links/**"):
        assert names(argument) == ["links/one.jpg"]


def test_folder_and_pattern_without_a_file_are_complained_about(tree):
    (tree / "empty").mkdir()
    meant = _meant_by([Path("empty"), Path("photos/*.gif"), Path("photos/a.jpg"), Path("no/**/x")])
    assert [file.as_posix() for file in meant.files] == ["photos/a.jpg"]
    assert [said for _, said in meant.complaints] == [
        *("empty: holds no file.", "photos/*.gif: no file has such a name."),
        "no/**/x: no file has such a name.",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_read_is_complained_about(tree):
    (tree / "photos/deep").chmod(0)
    try:
        meant = _meant_by([Path("photos")])
    finally:
        (tree / "photos/deep").chmod(0o755)
    assert "cannot be read" in meant.complaints[0][1]

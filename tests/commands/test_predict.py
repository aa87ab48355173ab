from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.commands.predict import FOREIGN_WARNING, SAMPLE_WARNING
from pipelines.evaluation.abstention import fit_abstention

ROOT = Path(__file__).resolve().parents[2]


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
    assert "Not for: Anything else" in out


def test_predict_model_of_real_images_carries_no_sample_warning(toy_bundle, colour_images, capsys):
    text = toy_bundle.read_text().replace('"data_source": "sample"', '"data_source": "folder"')
    toy_bundle.write_text(text)
    assert predict(toy_bundle.parents[3], colour_images["red"]) == 0
    assert SAMPLE_WARNING not in capsys.readouterr().out


def test_predict_says_when_it_does_not_know_the_kind_of_picture(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    # Known are greenish pictures; a black one is none of them.
    known = np.array([20, 230, 20]) * np.random.default_rng(0).uniform(0.7, 1.3, (60, 3))
    document = json.loads(toy_bundle.read_text())
    document["abstention"] = fit_abstention(known[:40], known[40:], 0.95).model_dump()
    document["operating_points"] = {
        "green": {
            "threshold": 0.5,
            "min_specificity": 0.9,
            "sensitivity": 0.8,
            "specificity": 0.9,
            "n_positive": 5,
            "n_negative": 10,
        }
    }
    toy_bundle.write_text(json.dumps(document))
    black = tmp_path / "black.png"
    Image.new("RGB", (20, 20)).save(black)
    assert predict(toy_project, colour_images["green"], black) == 0
    known_text, foreign_text = capsys.readouterr().out.split(str(black))
    assert FOREIGN_WARNING not in known_text
    known = r"A kind of picture that I know\. \(foreignness -?\d\.\d{3}, bound "
    assert re.search(known, known_text)
    assert "green: yes (yes from 0.500; on val that found 80% and said no to 90%" in known_text
    assert FOREIGN_WARNING in foreign_text
    assert "yes from" not in foreign_text

    assert predict(toy_project, colour_images["green"], black, "--json") == 0
    first, second = json.loads(capsys.readouterr().out)["images"]
    assert (first["is_foreign"], second["is_foreign"]) == (False, True)
    assert first["foreignness"] < document["abstention"]["threshold"] < second["foreignness"]
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
    arguments = (colour_images["red"], bad, absent, tmp_path, colour_images["blue"], "--json")
    assert predict(toy_project, *arguments) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [image["label"] for image in document["images"]] == ["red", "blue"]
    assert [entry["path"] for entry in document["errors"]] == list(
        map(str, (bad, absent, tmp_path))
    )
    lines = captured.err.splitlines()
    assert len(lines) == 3, "one line a bad image, a newline in the name included"
    assert "no\\nimage.jpg" in lines[0]
    assert "not an image of a known format" in lines[0]


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


@pytest.mark.parametrize("is_folder", [True, False])
def test_predict_bundle_by_path(is_folder, toy_bundle, colour_images, tmp_path, capsys):
    path = toy_bundle.parent if is_folder else toy_bundle
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
        "import sys\nfrom pipelines.cli import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'torchvision', 'mlflow', 'dvc', 'sklearn', 'cv2', 'pandas'}\n"
        "loaded = heavy & set(sys.modules)\nassert not loaded, loaded"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "predict",
            str(colour_images["red"]),
            "--root",
            str(toy_project),
        ],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_predict_shows_what_people_call_a_label(toy_project, toy_bundle, colour_images, capsys):
    document = json.loads(toy_bundle.read_text())
    toy_bundle.write_text(json.dumps(document | {"label_names": {"red": "红色"}}))
    words = ["predict", str(colour_images["red"]), "--task", "toy", "--root", str(toy_project)]
    assert cli.main(words) == 0
    assert "红色" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0
    image = json.loads(capsys.readouterr().out)["images"][0]
    assert (image["label"], image["name"]) == ("red", "红色")

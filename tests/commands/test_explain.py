from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.atomic import file_sha256
from pipelines.commands.predict import SAMPLE_WARNING


def explain(root: Path, *arguments: object) -> int:
    return cli.main(["explain", *map(str, arguments), "--root", str(root)])


@pytest.fixture
def half_green(tmp_path) -> Path:
    pixels = np.full((32, 32, 3), 20, dtype=np.uint8)
    pixels[:, 16:, 1] = 230
    path = tmp_path / "half green.png"
    Image.fromarray(pixels).save(path)
    return path


def test_explain_writes_one_png_a_picture_and_one_line_each(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    out = tmp_path / "maps"
    assert explain(toy_project, *colour_images.values(), "--task", "toy", "--out", out) == 0
    warning, *lines = capsys.readouterr().out.splitlines()
    assert warning == SAMPLE_WARNING
    assert len(lines) == len(colour_images)
    for (label, image), line in zip(colour_images.items(), lines, strict=True):
        file = out / f"{label}.{label}.occlusion.png"
        assert line.startswith(f"{image}: {label} 0.")
        assert line.endswith(f": {file}")
        assert file.read_bytes().startswith(b"\x89PNG")
    assert len(list(out.iterdir())) == len(colour_images)


def test_explain_is_hot_where_the_label_is_and_twice_the_same(
    toy_project, toy_bundle, half_green, tmp_path
):
    for folder in ("a", "b"):
        assert explain(toy_project, half_green, "--out", tmp_path / folder) == 0
    one, other = (tmp_path / folder / "half green.green.occlusion.png" for folder in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    drawn = np.asarray(Image.open(one), float)
    # 224 px a side from 8, with margins of 12 px: the overlay is the second square.
    overlay = drawn[12:236, 248:472]
    assert overlay[:, 120:, 0].mean() > overlay[:, :104, 0].mean() + 60


def test_explain_takes_another_label_than_the_answer(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    arguments = (colour_images["red"], "--label", "blue", "--out", tmp_path)
    assert explain(toy_project, *arguments) == 0
    assert ": blue 0.0" in capsys.readouterr().out
    assert (tmp_path / "red.blue.occlusion.png").is_file()


def test_explain_pictures_of_one_name_do_not_overwrite_each_other(
    toy_project, toy_bundle, colour_images, tmp_path
):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/red.png").write_bytes(colour_images["red"].read_bytes())
    files = (tmp_path / "a/red.png", colour_images["red"])
    assert explain(toy_project, *files, "--out", tmp_path / "maps") == 0
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == ["red.red.occlusion.2.png", "red.red.occlusion.png"]


def test_explain_bad_picture_is_complained_about_and_the_others_explained(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    long = colour_images["red"].rename(tmp_path / ("ä" * 120 + ".png"))
    assert explain(toy_project, tmp_path / "bad.png", long, "--out", tmp_path / "maps") == 2
    assert "bad.png" in capsys.readouterr().err
    assert len(list((tmp_path / "maps").iterdir())) == 1


def test_explain_unknown_label_lists_those_that_are(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    out = tmp_path / "maps"
    assert explain(toy_project, colour_images["red"], "--label", "reed", "--out", out) == 2
    assert "expected one of red, green, blue (got 'reed')" in capsys.readouterr().err
    assert not out.exists()


def test_explain_gradcam_without_a_float_model_says_what_makes_it(
    toy_project, toy_bundle, colour_images, tmp_path, capsys
):
    assert explain(toy_project, colour_images["red"], "--method", "gradcam", "--out", tmp_path) == 2
    assert "fieldlens train toy" in capsys.readouterr().err


@pytest.fixture
def float_parent(toy_bundle) -> Path:
    """An untrained MobileNet for the toy's three colours, named by its bundle as its parent."""
    from pipelines.backbones.heads import make_classifier
    from pipelines.training.float_model import FloatModel, save_float_model

    folder = toy_bundle.parents[1] / "float"
    meta = FloatModel.model_validate(
        {
            **{"task": "toy", "domain": "agriculture", "labels": ["red", "green", "blue"]},
            **{"backbone": "mobilenet_v3_small", "cut": 9, "hidden": [], "dropout": 0.0},
            **{"is_folded": False, "resize_px": 9, "image_px": 8, "strategy": "cached"},
            **{"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
            **dict.fromkeys(("weights", "data_sha256", "params_sha256", "data_source"), "none"),
            **dict.fromkeys(("weights_provider", "weights_sha256", "weights_licence")),
            **{"n_images": {}, "n_groups": {}, "val": {}},
        }
    )
    model = make_classifier(
        meta.backbone, n_classes=3, hidden=(), dropout=0.0, cut=meta.cut, seed=1
    )
    folder.mkdir()
    sha256 = save_float_model(folder, meta, model)
    toy_bundle.write_text(toy_bundle.read_text().replace("bb" * 32, sha256))
    return folder


def test_explain_gradcam_asks_the_float_parent_and_no_other(
    toy_project, toy_bundle, float_parent, colour_images, tmp_path, capsys
):
    arguments = (colour_images["red"], "--method", "gradcam", "--label", "red", "--out", tmp_path)
    assert explain(toy_project, *arguments) == 0
    assert "red.red.gradcam.png" in capsys.readouterr().out
    assert (tmp_path / "red.red.gradcam.png").is_file()
    # Of another export.
    sha256 = file_sha256(float_parent / "weights.safetensors")
    toy_bundle.write_text(toy_bundle.read_text().replace(sha256, "e" * 64))
    assert explain(toy_project, *arguments) == 2
    assert "is not the float model" in capsys.readouterr().err

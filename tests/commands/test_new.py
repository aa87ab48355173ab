from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import atomic, cli
from pipelines.card import load_card
from pipelines.config.params import load_params
from pipelines.data.decoding import measure_range
from pipelines.data.manifest import read_manifest
from pipelines.paths import Paths
from tests.file_tree import file_tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four small pictures, in folders named as people name them."""
    folder = tmp_path / "photos"
    for number, name in enumerate(("Late blight", "healthy")):
        (folder / name).mkdir(parents=True)
        for shot in range(4):
            pixels = np.full((40 + shot, 60, 3), 40 * number, dtype=np.uint8)
            suffix = "png" if shot else "jpg"
            Image.fromarray(pixels).save(folder / name / f"{shot}.{suffix}")
    (folder / "notes.txt").write_text("not an image")
    return folder


def new(root: Path, source: Path, task: str = "rice_leaf") -> int:
    arguments = ["new", task, "--domain", "agriculture", "--from", str(source)]
    return cli.main([*arguments, "--root", str(root)])


def test_new_writes_three_files_that_the_pipeline_reads(toy_project, photos, capsys):
    before = file_tree(toy_project)
    assert new(toy_project, photos) == 0
    after = file_tree(toy_project)
    written = {name for name in after if after[name] != before.get(name)}
    assert written == {
        "params.yaml",
        "datasets/rice_leaf/card.yaml",
        "tests/agriculture/test_rice_leaf.py",
    }
    params = load_params(toy_project / "params.yaml")
    section = params.task("rice_leaf")
    assert section.fetch.source.kind == "folder"
    assert section.fetch.source.path == str(photos)
    assert section.train == params.task("toy").train
    card = load_card(toy_project / "datasets/rice_leaf/card.yaml")
    assert card.labels == ("healthy", "late_blight")
    assert card.label_of("Late blight") == "late_blight"
    assert card.group_key == "image"
    assert card.n_images == 8
    assert card.licence.spdx == "NOASSERTION"
    assert "fill in" in card.licence.url
    out = capsys.readouterr().out
    assert "NO GROUPS ARE KNOWN" in out
    assert "late_blight = Late blight (4)" in out
    assert "PNG 6, JPEG 2" in out
    assert "dvc repro gate@rice_leaf" in out
    assert "pipelines/agriculture/rice_leaf.py" in out
    assert "pipelines/samples/rice_leaf.py" in out


def test_new_keeps_every_byte_of_params_and_shares_its_anchors(toy_project, photos):
    before = (toy_project / "params.yaml").read_text()
    assert new(toy_project, photos) == 0
    after = (toy_project / "params.yaml").read_text()
    start = after.index("\n  rice_leaf:\n")
    end = after.index("\n\n", start + 1)
    block = after[start:end]
    assert after.replace(block + "\n", "") == before
    assert before[start - 1] == "\n", "set off from the task before it"
    assert "    prepare: {<<: *prepare}\n" in block
    assert "      <<: *train\n" in block
    assert "      tail_phase: {<<: *tail_phase}\n" in block
    assert start < after.index("# Overlays for real images.")


def test_new_without_anchors_writes_the_sections_out(toy_project, photos):
    from ruamel.yaml import YAML

    path = toy_project / "params.yaml"
    document = YAML(typ="safe", pure=True).load(path.read_text())
    yaml = YAML(typ="safe", pure=True)
    yaml.representer.ignore_aliases = lambda _: True
    yaml.default_flow_style = False
    with path.open("w") as stream:
        yaml.dump({key: document[key] for key in ("seed", "tasks")}, stream)
    old = load_params(path)
    assert new(toy_project, photos) == 0
    params = load_params(path)
    assert params.task("rice_leaf").train == old.task("toy").train
    assert {name: params.task(name) for name in old.tasks} == old.tasks


def test_new_test_passes_the_checks_and_works(toy_project, photos):
    assert new(toy_project, photos) == 0
    test = toy_project / "tests/agriculture/test_rice_leaf.py"
    ruff = [sys.executable, "-m", "ruff"]
    # Docstrings are asked of the package alone, by a path relative to the repository's root.
    for check in (["check", "--ignore", "D"], ["format", "--check"]):
        command = [*ruff, *check, "--config", str(ROOT / "pyproject.toml"), str(test)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(test)],
        cwd=toy_project,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "1 passed" in done.stdout, done.stdout


def test_new_task_goes_through_fetch_and_prepare_at_once(toy_project, prepared_task):
    manifest = read_manifest(Paths(toy_project).task(prepared_task).manifest)
    assert len(manifest) == 24
    assert {entry.label for entry in manifest} == {"calm", "rough"}
    assert {entry.split for entry in manifest} == {"train", "val", "test"}


def test_new_believes_records_csv(toy_project, photos, capsys):
    rows = ["path,label,group"]
    rows += [f"Late blight/{n}.png,Late,plant{n}" for n in (1, 2, 3)]
    rows += [f"healthy/{n}.png,OK,plant{n}" for n in (1, 2, 3)]
    (photos / "records.csv").write_text("\n".join(rows))
    assert new(toy_project, photos) == 0
    card = load_card(toy_project / "datasets/rice_leaf/card.yaml")
    assert card.labels == ("late", "ok")
    assert card.n_images == 6
    assert "records.csv" in card.group_key
    assert "NO GROUPS" not in capsys.readouterr().out


def test_new_grey_16_bit_pictures_are_seen(toy_project, photos):
    for file in photos.rglob("*.*g"):
        file.unlink()
    for name in ("Late blight", "healthy"):
        for shot in range(3):
            pixels = np.full((30, 30), 40_000, dtype=np.uint16)
            Image.fromarray(pixels).save(photos / name / f"{shot}.png")
        (photos / name / "broken.png").write_bytes(b"no picture")
    assert new(toy_project, photos) == 0
    image = load_card(toy_project / "datasets/rice_leaf/card.yaml").image
    assert (image.channels, image.bit_depth) == (1, 16)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("toy", "there already"),
        ("Rice", "lower-case"),
        ("9lives", "lower-case"),
        ("../evil", "lower-case"),
        ("import", "word of Python"),
        ("x" * 61, "at most 60"),
    ],
)
def test_new_bad_name_is_refused_and_nothing_written(task, says, toy_project, photos, capsys):
    before = file_tree(toy_project)
    assert new(toy_project, photos, task) == 2
    assert says in capsys.readouterr().err
    assert file_tree(toy_project) == before


def one_class(photos: Path) -> None:
    for file in (photos / "healthy").iterdir():
        file.unlink()


def two_images(photos: Path) -> None:
    for file in sorted((photos / "healthy").iterdir())[:2]:
        file.unlink()


def same_label(photos: Path) -> None:
    (photos / "healthy").rename(photos / "late-BLIGHT")


def no_letters(photos: Path) -> None:
    (photos / "healthy").rename(photos / "bell\a")


def bad_table(photos: Path) -> None:
    (photos / "records.csv").write_text("file,kind\na,b\n")


def binary_table(photos: Path) -> None:
    (photos / "records.csv").write_bytes(b"path,label\n\xff\xfe,a\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (one_class, "at least 2 classes"),
        (two_images, "at least 3 images"),
        (same_label, "would both be the label 'late_blight'"),
        (no_letters, "no label can be made"),
        (bad_table, "expected the columns path, label"),
        (binary_table, "expected CSV text in UTF-8"),
    ],
)
def test_new_bad_folder_is_refused_and_nothing_written(spoil, says, toy_project, photos, capsys):
    spoil(photos)
    before = file_tree(toy_project)
    assert new(toy_project, photos) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert file_tree(toy_project) == before


def test_new_no_such_folder(toy_project, tmp_path, capsys):
    assert new(toy_project, tmp_path / "absent") == 2
    assert "no such folder" in capsys.readouterr().err


def test_new_overwrites_no_file(toy_project, photos, capsys):
    test = toy_project / "tests/agriculture/test_rice_leaf.py"
    test.parent.mkdir(parents=True)
    test.write_text("mine")
    before = file_tree(toy_project)
    assert new(toy_project, photos) == 2
    assert "is not overwritten" in capsys.readouterr().err
    assert file_tree(toy_project) == before


def test_new_disk_full_on_the_last_file_leaves_none(toy_project, photos, monkeypatch, capsys):
    write = atomic.write_text

    def fail_on_params(path: Path, text: str) -> None:
        if path.name == "params.yaml":
            raise OSError(28, "No space left on device", str(path))
        write(path, text)

    monkeypatch.setattr(atomic, "write_text", fail_on_params)
    before = file_tree(toy_project)
    assert new(toy_project, photos) == 2
    assert "No space left" in capsys.readouterr().err
    assert file_tree(toy_project) == before


def test_new_measures_deep_files_and_writes_the_range(toy_project, photos, capsys):
    for number, name in enumerate(("Late blight", "healthy")):
        for shot in range(3):
            levels = np.full((40, 60), 900 + 100 * number + shot, np.uint16)
            Image.fromarray(levels).save(photos / name / f"deep{shot}.png")
    assert new(toy_project, photos) == 0
    image = load_card(toy_project / "datasets/rice_leaf/card.yaml").image
    assert image.range is not None
    assert (image.range.low, image.range.high, image.bit_depth) == (900, 1002, 10)


@pytest.mark.parametrize(
    ("values", "in_card", "bit_depth"),
    [
        (np.array([[0.25, 0.75, np.nan]], np.float32), {"low": 0.25, "high": 0.75}, 32),
        (np.array([[-1000, 3000]], np.int32), {"low": -1000, "high": 3000}, 32),
        (np.array([[0, 4096]], np.uint16), {"low": 0, "high": 4096}, 14),
        (np.array([[7, 7]], np.uint16), {"low": 7, "high": 8}, 10),
    ],
)
def test_a_set_is_measured_whatever_its_type(tmp_path, values, in_card, bit_depth):
    deep, flat = tmp_path / "a.tif", tmp_path / "b.jpg"
    Image.fromarray(np.repeat(values, 4, axis=0)).save(deep)
    Image.new("RGB", (9, 9)).save(flat)
    (tmp_path / "c.png").write_bytes(b"no image")
    measured = measure_range([deep, flat, tmp_path / "c.png", tmp_path / "not there"])
    assert measured is not None
    assert (measured.in_card(), measured.bit_depth, measured.n_files) == (in_card, bit_depth, 1)
    assert measure_range([flat]) is None

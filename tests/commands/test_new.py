from __future__ import annotations

import json
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
from pipelines.strict_yaml import read_yaml
from tests.file_tree import file_tree
from tests.processes import ROOT, ran


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
    for words in (
        *("NO GROUPS ARE KNOWN", "late_blight = Late blight (4)", "PNG 6, JPEG 2"),
        *("gate@rice_leaf", "pipelines/agriculture/rice_leaf.py", "pipelines/samples/rice_leaf.py"),
    ):
        assert words in out


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
    path = toy_project / "params.yaml"
    document = read_yaml(path)
    blocks = (f"  {task}: {json.dumps(block)}" for task, block in document["tasks"].items())
    path.write_text("\n".join([f"seed: {document['seed']}", "tasks:", *blocks]))
    old = load_params(path)
    assert new(toy_project, photos) == 0
    params = load_params(path)
    assert params.task("rice_leaf").train == old.task("toy").train
    assert {name: params.task(name) for name in old.tasks} == old.tasks


def test_new_test_passes_the_checks_and_works(toy_project, photos):
    assert new(toy_project, photos) == 0
    test = toy_project / "tests/agriculture/test_rice_leaf.py"
    # Docstrings are asked of the package alone, by a path relative to the repository's root.
    for check in (["check", "--ignore", "D"], ["format", "--check"]):
        ran(sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", test)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    assert "1 passed" in ran(*command, cwd=toy_project).stdout


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


@pytest.mark.parametrize(
    ("is_mixed", "channels", "levels", "bit_depth", "ends"),
    [(False, 1, 40_000, 16, (40_000, 40_005)), (True, 3, 900, 10, (900, 905))],
)
def test_new_measures_deep_files_and_writes_the_range(
    is_mixed, channels, levels, bit_depth, ends, toy_project, photos
):
    if not is_mixed:
        remove(photos, "**/*.*g")
    for number, name in enumerate(("Late blight", "healthy")):
        for shot in range(3):
            pixels = np.full((30, 30), levels + 3 * number + shot, dtype=np.uint16)
            Image.fromarray(pixels).save(photos / name / f"deep{shot}.png")
        (photos / name / "broken.png").write_bytes(b"no picture")
    assert new(toy_project, photos) == 0
    image = load_card(toy_project / "datasets/rice_leaf/card.yaml").image
    assert (image.channels, image.bit_depth) == (channels, bit_depth)
    assert (image.range.low, image.range.high) == ends


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


def remove(photos: Path, pattern: str) -> None:
    for file in photos.glob(pattern):
        file.unlink()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda photos: remove(photos, "healthy/*"), "at least 2 classes"),
        (lambda photos: remove(photos, "healthy/[01].*"), "at least 3 images"),
        (
            lambda photos: (photos / "healthy").rename(photos / "late-BLIGHT"),
            "would both be the label 'late_blight'",
        ),
        (lambda photos: (photos / "healthy").rename(photos / "bell\a"), "no label can be made"),
        (
            lambda photos: (photos / "records.csv").write_text("file,kind\na,b\n"),
            "expected the columns path, label",
        ),
        (
            lambda photos: (photos / "records.csv").write_bytes(b"path,label\n\xff\xfe,a\n"),
            "expected CSV text in UTF-8",
        ),
        (lambda photos: photos.rename(photos.with_name("gone")), "no such folder"),
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

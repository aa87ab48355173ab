"""Folders as people have them, from `new` through `fetch` to `prepare`.

Each kind is made here; where the small failing inputs that were handed over are there
(FIELDLENS_FAULTS), they are tried as well.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli
from pipelines.card import load_card
from pipelines.data.manifest import SPLITS, Entry, read_manifest, write_manifest
from pipelines.paths import Paths
from pipelines.strict_yaml import read_yaml
from tests.stages.test_prepare import scene

ROOT = Path(__file__).resolve().parents[2]
#: An ISO base media file of brand heic, without a picture in it.
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64
TASK = "own_set"

Intake = Callable[..., dict[str, int]]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """A project with one task, whose sections a new one takes over."""
    root = tmp_path / "project"
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    head = re.split(r"^(?:tasks|real):", text, maxsplit=1, flags=re.MULTILINE)[0]
    block = re.search(r"^  cats_dogs:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert block is not None
    (root / "datasets/cats_dogs").mkdir(parents=True)
    (root / "params.yaml").write_text(f"{head}tasks:\n  cats_dogs:\n{block[1]}", encoding="utf-8")
    shutil.copy(ROOT / "datasets/cats_dogs/card.yaml", root / "datasets/cats_dogs/card.yaml")
    return Paths(root)


@pytest.fixture
def intake(paths: Paths) -> Intake:
    """Runs `new`, `fetch` and `prepare` on a folder, up to the first that fails: exit codes."""

    def run(folder: Path, **card: object) -> dict[str, int]:
        root = ["--root", str(paths.root)]
        new = ["new", TASK, "--domain", "agriculture", "--from", str(folder), *root]
        codes = {"new": cli.main(new)}
        if codes["new"] == 0 and card:
            path = paths.task(TASK).card
            document = read_yaml(path) | card
            path.write_text(json.dumps(document), encoding="utf-8")
        for verb in ("fetch", "prepare"):
            if not any(codes.values()):
                codes[verb] = cli.main([verb, TASK, *root])
        return codes

    return run


GOOD = {"new": 0, "fetch": 0, "prepare": 0}
STOPPED = {"new": 0, "fetch": 0, "prepare": 2}


def paint(folder: Path, *names: str, n: int = 6, first: int = 0) -> Path:
    """A folder of ``n`` different pictures for each name."""
    for row, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for shot in range(n):
            seed = first + 1000 * row + shot
            scene(seed).save(folder / name / f"img{first + shot:03d}.jpg", quality=90)
    return folder


def entries(paths: Paths) -> list[Entry]:
    return read_manifest(paths.task(TASK).manifest)


def summary(paths: Paths) -> dict[str, Any]:
    return json.loads(paths.task(TASK).prepare_summary.read_text(encoding="utf-8"))


# -- nothing lost ---------------------------------------------------------------------------------
def test_class_of_unreadable_files_stops_prepare_by_its_name(paths, intake, tmp_path, capsys):
    folder = paint(tmp_path / "set", "healthy", "rust", n=30)
    (folder / "blight").mkdir()
    for shot in range(5):
        (folder / f"blight/IMG_{shot}.jpg").write_bytes(b"no picture " * (shot + 9))
    assert intake(folder) == STOPPED
    said = capsys.readouterr().err
    assert "class 'blight': no image is left" in said
    assert "Of class blight 0 of 5 files are left: 5 not an image of a known format" in said
    assert "prepare.classes: [healthy, rust]" in said
    assert not paths.task(TASK).prepared_dir.exists()


def test_class_that_is_all_copies_under_two_labels_stops_prepare(paths, intake, tmp_path, capsys):
    folder = paint(tmp_path / "set", "healthy", "rust", n=30)
    (folder / "blight").mkdir()
    for shot in range(4):
        shutil.copy(folder / f"rust/img{shot:03d}.jpg", folder / f"blight/{shot}.jpg")
    assert intake(folder) == STOPPED
    said = capsys.readouterr().err
    assert "Of class blight 0 of 4 files are left: 4 copies under two labels" in said


def test_most_of_two_classes_in_a_format_that_is_not_read(paths, intake, tmp_path, capsys):
    folder = paint(tmp_path / "set", "healthy", "rust", n=8)
    for name in ("healthy", "rust"):
        for shot in range(30):
            (folder / f"{name}/IMG_{shot}.HEIC").write_bytes(HEIC + bytes([shot]))
    assert intake(folder) == STOPPED
    said = capsys.readouterr().err
    assert "class 'healthy': 30 of 38 files cannot be read" in said
    assert "Of class healthy 8 of 38 files are left: 30" in said


def test_class_of_camera_raws_alone_is_refused_by_new(intake, tmp_path, capsys):
    folder = paint(tmp_path / "set", "healthy", "rust")
    (folder / "blight").mkdir()
    for shot in range(8):
        (folder / f"blight/DSC_{shot}.NEF").write_bytes(b"II*\0")
    assert intake(folder) == {"new": 2}
    assert "'blight' has no image that is read, but 8 .nef" in capsys.readouterr().err


def test_folder_of_notes_is_told_and_no_class(paths, intake, tmp_path, capsys):
    folder = paint(tmp_path / "set", "healthy", "rust")
    (folder / "docs").mkdir()
    (folder / "docs/notes.txt").write_text("hello")
    assert intake(folder) == GOOD
    assert "'docs' is no class: its 1 file(s) are no images (1 .txt)" in capsys.readouterr().err
    assert load_card(paths.task(TASK).card).labels == ("healthy", "rust")


def test_left_behind_names_are_counted_apart_and_the_sum_is_right(paths, intake, tmp_path, capsys):
    folder = paint(tmp_path / "set", "healthy", "rust")
    for name in ("__MACOSX/healthy/._img.jpg", "rust/@eaDir/img.jpg/SYNO.jpg", "rust/Thumbs.db"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    assert intake(folder) == GOOD
    assert len(entries(paths)) == 12
    shown = capsys.readouterr().out
    assert re.search(r"^left by a system +3 +- +- +3$", shown, re.MULTILINE)
    assert re.search(r"^all +15 +12 +- +3$", shown, re.MULTILINE)
    counted = summary(paths)["files"]
    n_passed = sum(counted["passed_over"].values())
    assert counted["n_files"] == sum(counted["read"].values()) + n_passed


# -- labels ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (("0", "1", "2", "10"), ("class_0", "class_1", "class_2", "class_10")),
        (("健康", "早疫病", "锈病"), ("jian_kang", "xiu_bing", "zao_yi_bing")),
        (("здоровый", "Größenfehler"), ("grossenfehler", "zdorovyy")),
        (("3mm_crack", "no crack"), ("class_3mm_crack", "no_crack")),
    ],
)
def test_names_of_any_script_get_a_slug_and_stay_for_people(paths, intake, tmp_path, names, labels):
    assert intake(paint(tmp_path / "set", *names)) == GOOD
    card = load_card(paths.task(TASK).card)
    assert card.labels == labels
    assert set(card.names.values()) == set(names)
    assert {entry.label for entry in entries(paths)} == set(labels)


def test_folder_in_nfd_and_table_in_nfc(paths, intake, tmp_path):
    nfd, nfc = (unicodedata.normalize(form, "blätter") for form in ("NFD", "NFC"))
    folder = paint(tmp_path / "set", nfd, "rost")
    rows = [f"{name}/img{n:03d}.jpg,{name}" for name in (nfc, "rost") for n in range(6)]
    (folder / "records.csv").write_text("path,label\n" + "\n".join(rows), encoding="utf-8")
    assert intake(folder) == GOOD
    assert Counter(entry.label for entry in entries(paths)) == {"blatter": 6, "rost": 6}


def test_train_refuses_a_label_without_train_images(paths, intake, tmp_path, capsys):
    assert intake(paint(tmp_path / "set", "healthy", "rust")) == GOOD
    moved = [
        replace(entry, split="val" if entry.label == "rust" else entry.split)
        for entry in entries(paths)
    ]
    paths.task(TASK).manifest.write_text(write_manifest(moved), encoding="utf-8")
    capsys.readouterr()
    assert cli.main(["train", TASK, "--root", str(paths.root)]) == 2
    assert "no train image of rust" in capsys.readouterr().err


# -- given splits ---------------------------------------------------------------------------------
def split_set(folder: Path, **n: int) -> Path:
    for number, (split, count) in enumerate(n.items()):
        paint(folder / split, "healthy", "rust", n=count, first=100 * number)
    return folder


def test_given_split_is_kept(paths, intake, tmp_path, capsys):
    folder = split_set(tmp_path / "set", train=14, valid=4, test=4)
    assert intake(folder) == GOOD
    assert load_card(paths.task(TASK).card).splits == "given"
    names = {"train": "train", "valid": "val", "test": "test"}
    for entry in entries(paths):
        assert entry.split == names[entry.path.partition("/")[0]]
    assert summary(paths)["splits"]["by"] == "given"
    assert "The split is given: 28 train, 8 val, 8 test" in capsys.readouterr().out


@pytest.mark.parametrize("there", ["valid", "test", ""])
def test_missing_parts_are_made_from_train(paths, intake, tmp_path, there):
    folder = split_set(tmp_path / "set", **{"train": 20, **({there: 5} if there else {})})
    assert intake(folder) == GOOD
    found = entries(paths)
    for entry in found:
        if there and entry.path.startswith(there):
            assert entry.split == {"valid": "val", "test": "test"}[there]
    made = summary(paths)["splits"]["made_from_train"]
    assert made == [part for part in ("val", "test") if not there.startswith(part)]
    counts = Counter((entry.label, entry.split) for entry in found)
    assert all(counts[key] >= 2 for key in itertools.product(("healthy", "rust"), SPLITS))


def test_made_pools_the_parts_and_says_so(paths, intake, tmp_path, capsys):
    folder = split_set(tmp_path / "set", train=10, val=4, test=4)
    assert intake(folder, splits="made") == GOOD
    assert "the publisher's parts are pooled" in capsys.readouterr().err
    assert any(entry.split != entry.path.partition("/")[0] for entry in entries(paths))


@pytest.mark.parametrize("kind", ["copy", "near", "group"])
def test_what_straddles_is_refused_unless_the_card_says_why(paths, intake, tmp_path, capsys, kind):
    folder = split_set(tmp_path / "set", train=10, val=4, test=4)
    card: dict[str, object] = {}
    if kind == "copy":
        shutil.copy(folder / "test/rust/img200.jpg", folder / "train/rust/again.jpg")
    elif kind == "near":
        scene(1200).resize((50, 50)).save(folder / "train/rust/again.png")
    else:
        card["group_pattern"] = r"img\d(?P<group>\d\d)"
    assert intake(folder, **card) == STOPPED
    said = capsys.readouterr().err
    words = {"copy": "1 exact copy pair", "near": "1 near-duplicate pair", "group": "4 group(s)"}
    assert words[kind] in said
    assert "straddling_accepted" in said

    path = paths.task(TASK).card
    document = read_yaml(path) | {"straddling_accepted": "as published"}
    path.write_text(json.dumps(document), encoding="utf-8")
    assert cli.main(["prepare", TASK, "--root", str(paths.root)]) == 0
    found = summary(paths)["splits"]
    assert found["straddling_accepted"] == "as published"
    kept = {entry.path: entry.split for entry in entries(paths)}
    if kind == "copy":
        assert found["straddling"]["n_exact_copies"] == 1
        assert kept["test/rust/img200.jpg"] == "test"
        assert "train/rust/again.jpg" not in kept
    elif kind == "near":
        assert found["straddling"]["n_near_duplicates"] == 1
        assert kept["train/rust/again.png"] == "train"
    else:
        assert found["straddling"]["n_groups"] == 4


def test_given_split_without_a_class_in_test_is_refused(intake, tmp_path, capsys):
    folder = split_set(tmp_path / "set", train=10, val=4, test=4)
    shutil.rmtree(folder / "test/rust")
    assert intake(folder) == STOPPED
    assert "'rust' (train 10, val 4, test 0)" in capsys.readouterr().err


# -- many classes ---------------------------------------------------------------------------------
def test_two_hundred_classes_of_four_images(paths, intake, tmp_path):
    names = [f"species {number:03d}" for number in range(200)]
    assert intake(paint(tmp_path / "set", *names, n=4)) == GOOD
    assert len({entry.label for entry in entries(paths)}) == 200


# -- what was handed over -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "counts"),
    [
        ("splitlayout", {"healthy": 22, "rust": 22}),
        ("macosx", {"healthy": 12, "rust": 12}),
        ("synology", {"healthy": 6, "rust": 6}),
        ("bom", {"healthy": 6, "rust": 6}),
        ("nfd", {"blatter": 6, "rost": 6}),
        ("numeric", {f"class_{number}": 6 for number in range(5)}),
        ("chinese", {"jian_kang": 6, "xiu_bing": 6, "zao_yi_bing": 6}),
        ("metadata_csv", {"healthy": 6, "rust": 6}),
    ],
)
def test_folder_that_was_handed_over_is_read(paths, intake, faults_dir, case, counts):
    assert intake(faults_dir / case) == GOOD
    assert Counter(entry.label for entry in entries(paths)) == counts


@pytest.mark.parametrize(("case", "name"), [("vanish", "blight"), ("dicom", "covid")])
def test_folder_that_was_handed_over_is_refused_by_name(
    paths, intake, faults_dir, capsys, case, name
):
    assert intake(faults_dir / case) == STOPPED
    assert f"Of class {name} 0 of" in capsys.readouterr().err

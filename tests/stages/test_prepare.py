"""prepare on painted folders: what is accepted, what is refused, and what stops the stage."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.card import SampleSource, load_card
from pipelines.config.prepare import PrepareParams
from pipelines.data.manifest import Entry, content_sha256, read_manifest, read_summary
from pipelines.data.pixel_range import Reading
from pipelines.errors import ConfigError, DataError, MissingDataError
from pipelines.paths import Paths
from pipelines.samples import cats_dogs
from pipelines.samples.folder import write_sample
from pipelines.stages import prepare
from tests.data.fixed_camera import CAMERAS, jpeg, part
from tests.data.test_decoding import scan
from tests.dicom_files import SECRETS
from tests.file_tree import file_tree

ROOT = Path(__file__).parents[2]
SEED = 7
CARD = """
title: Tiles
task: tiles
domain: reference
source: {publisher: nobody, url: none, version: "1", retrieved: "2026-01-01"}
licence: {spdx: CC0-1.0, url: none, redistribution: Free.}
citation: {text: none}
classes:
  - {label: oak, meaning: An oak., source_names: [Oak Tree]}
  - {label: elm, meaning: An elm.}
  - {label: ash, meaning: An ash.}
unit_of_observation: one tile
group_key: tree
group_pattern: '(?P<group>t\\d+)_'
image: {modality: painting, channels: 3, bit_depth: 8}
splits: made
known_biases: [painted]
consent_and_privacy: none needed
intended_use: tests
not_for: [anything else]
"""


def params(**changes: Any) -> PrepareParams:
    values: dict[str, Any] = {
        "classes": None,
        "val_fraction": 0.2,
        "test_fraction": 0.2,
        "near_duplicate_bits": 4,
        "max_quarantine_fraction": 0.1,
        "min_side_px": 16,
    }
    return PrepareParams.model_validate(values | changes)


def scene(seed: int, side_px: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side_px, side_px), Image.Resampling.BICUBIC)


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    """Three labels with ten trees of two images each."""
    paths = Paths(tmp_path)
    files = paths.task("tiles")
    files.card.parent.mkdir(parents=True)
    files.card.write_text(CARD, encoding="utf-8")
    for at, folder in enumerate(("Oak Tree", "elm", "ash")):
        (files.raw_dir / folder).mkdir(parents=True)
        for seed in range(20 * at + 1, 20 * at + 21):
            name = f"t{(seed + 1) // 2:03d}_{'ba'[seed % 2]}.jpg"
            scene(seed).save(files.raw_dir / folder / name, quality=90)
    return paths


def raw(paths: Paths) -> Path:
    return paths.task("tiles").raw_dir


def run(paths: Paths, **changes: Any) -> tuple[list[Entry], dict[str, Any], dict[str, str]]:
    prepare.run("tiles", "reference", params(**changes), SEED, paths)
    files = paths.task("tiles")
    summary = json.loads(files.prepare_summary.read_text(encoding="utf-8"))
    with files.quarantine.open(encoding="utf-8", newline="") as stream:
        refused = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    return read_manifest(files.manifest), summary, refused


def test_clean_folder_is_split_by_group_and_summed_up(project: Paths) -> None:
    entries, summary, refused = run(project)
    assert refused == {}
    assert len(entries) == 60
    splits = {(entry.group, entry.split) for entry in entries}
    assert len(splits) == len({entry.group for entry in entries}) == 30
    assert Counter(entry.split for entry in entries) == {"train": 36, "val": 12, "test": 12}
    for entry in entries:
        data = (raw(project) / entry.path).read_bytes()
        assert entry.sha256 == hashlib.sha256(data).hexdigest()
        assert (entry.width_px, entry.height_px) == (64, 64)
    assert summary["labels"] == ["oak", "elm", "ash"]
    assert summary["n_images"]["by_split"] == {"train": 36, "val": 12, "test": 12}
    assert summary["n_groups"]["by_label"]["oak"] == {"train": 6, "val": 2, "test": 2}
    assert summary["n_images_of_largest_group"] == 2
    assert summary["formats"] == {"JPEG": 60}
    assert summary["data_sha256"] == content_sha256(entries)
    assert summary["data_source"] == "folder"
    assert set(summary["quarantine"].values()) == {0}
    sheets = sorted(path.name for path in project.task("tiles").contact_dir.iterdir())
    assert sheets == ["ash.png", "elm.png", "oak.png"]
    assert "reading" not in summary
    assert read_summary(project.task("tiles").prepare_summary).reading == Reading()


def test_second_run_writes_the_same_bytes_wherever_the_project_lies(
    project: Paths, tmp_path_factory: pytest.TempPathFactory
) -> None:
    run(project)
    first = file_tree(project.task("tiles").prepared_dir)
    assert len(first) == 6
    run(project)
    assert file_tree(project.task("tiles").prepared_dir) == first
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "project"
    shutil.copytree(project.root, elsewhere)
    run(Paths(elsewhere))
    assert file_tree(Paths(elsewhere).task("tiles").prepared_dir) == first
    assert str(project.root) not in project.task("tiles").prepare_summary.read_text()


def test_bad_files_are_quarantined_and_stop_nothing(project: Paths) -> None:
    elm = raw(project) / "elm"
    (elm / "t900_text.jpg").write_text("no image", encoding="utf-8")
    (elm / "t901_empty.png").write_bytes(b"")
    (elm / "t902_cut.jpg").write_bytes((elm / "t011_a.jpg").read_bytes()[:-200])
    scene(900, 8).save(elm / "t903_small.png")
    scene(901).save(elm / "t904_two\nlines.png")
    (elm / "t905_loop.png").symlink_to(elm / "t905_loop.png")
    os.mkfifo(elm / "t906_pipe.png")
    scene(902).save(elm / "t907_naïve.jpg", "PNG")
    entries, summary, refused = run(project, max_quarantine_fraction=0.2)
    assert {path.partition("_")[2]: reason.split(" (")[0] for path, reason in refused.items()} == {
        "text.jpg": "not an image of a known format",
        "empty.png": "the file is empty",
        "cut.jpg": "damaged or truncated",
        "small.png": "8 x 8 px; the shorter side must have at least 16 px",
        "loop.png": "cannot be read",
        "pipe.png": "not a regular file",
    }
    assert {"elm/t904_two\nlines.png", "elm/t907_naïve.jpg"} <= {entry.path for entry in entries}
    assert len(entries) == 62
    assert summary["quarantine"]["unreadable"] == 5
    assert summary["quarantine"]["too_small"] == 1
    assert summary["n_suffix_mismatches"] == 1
    assert all("\n" not in reason for reason in refused.values())


def test_listed_file_that_is_not_there_is_quarantined(project: Paths) -> None:
    files = [path.relative_to(raw(project)) for path in sorted(raw(project).rglob("*.jpg"))]
    lines = [f"{path},{path.parent},{str(path).split('_')[0]}" for path in files]
    table = ["path,label,group", *lines, "gone.png,elm,gone"]
    (raw(project) / "records.csv").write_text("\n".join(table), encoding="utf-8")
    entries, summary, refused = run(project)
    assert refused == {"gone.png": "the file is listed but is not there"}
    assert summary["quarantine"]["missing"] == 1
    assert len(entries) == 60


def test_too_many_bad_files_stop_the_stage_and_leave_the_old_result(project: Paths) -> None:
    run(project)
    before = file_tree(project.task("tiles").prepared_dir)
    for index in range(9):
        (raw(project) / "ash" / f"t{900 + index}_x.jpg").write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"9 of 69 images.*t900_x.*t901_x.*t902_x.*at most 10%"
    ) as e:
        run(project)
    assert "t903_x" not in str(e.value)
    assert file_tree(project.task("tiles").prepared_dir) == before
    assert not list(project.task("tiles").prepared_dir.parent.glob(".tmp-*"))


def test_copies_are_kept_once_and_join_their_groups(project: Paths) -> None:
    elm = raw(project) / "elm"
    shutil.copy(elm / "t011_a.jpg", elm / "t950_copy.jpg")
    scene(950).save(elm / "t950_other.jpg")
    entries, summary, refused = run(project, max_quarantine_fraction=0.0)
    assert refused == {"elm/t950_copy.jpg": "exact duplicate of 'elm/t011_a.jpg'"}
    group = {entry.path: entry.group for entry in entries}
    assert group["elm/t950_other.jpg"] == group["elm/t011_a.jpg"] == "t011"
    assert summary["quarantine"]["exact_duplicate"] == 1


def test_copies_under_two_labels_are_both_left_out(project: Paths) -> None:
    shutil.copy(raw(project) / "elm" / "t011_a.jpg", raw(project) / "ash" / "t951_a.jpg")
    entries, summary, refused = run(project)
    assert refused == {
        "ash/t951_a.jpg": "conflicting labels: the same bytes as 'elm/t011_a.jpg' (elm)",
        "elm/t011_a.jpg": "conflicting labels: the same bytes as 'ash/t951_a.jpg' (ash)",
    }
    assert not set(refused) & {entry.path for entry in entries}
    assert summary["quarantine"]["conflicting_duplicate"] == 2


def test_near_duplicates_are_kept_in_one_group(project: Paths) -> None:
    # Their names state no group, so they go where their pictures are.
    scene(30).resize((50, 50)).save(raw(project) / "elm" / "small.png")
    scene(41).save(raw(project) / "elm" / "again.jpg", quality=75)
    entries, summary, refused = run(project)
    group = {entry.path: entry.group for entry in entries}
    source = {seed: f"t{(seed + 1) // 2:03d}" for seed in (30, 41)}
    assert refused == {}
    assert group["elm/small.png"] == source[30]
    assert group["elm/again.jpg"] == source[41]
    near = summary["near_duplicates"]
    assert (near["n_joined_groups"], near["n_absorbed_groups"]) == (2, 2)
    # Number 41 is an ash: its copy under elm is reported.
    assert near["n_pairs_across_labels"] == 1
    assert near["pairs_across_labels"] == [["ash/t021_a.jpg", "elm/again.jpg"]]


def test_stated_groups_win_over_near_duplicates(
    project: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    for seed in range(24, 31):
        scene(seed).save(raw(project) / "elm" / f"t9{seed}_a.jpg", quality=75)
    with caplog.at_level(logging.WARNING):
        entries, summary, _ = run(project)
    assert {f"t9{seed}" for seed in range(24, 31)} <= {entry.group for entry in entries}
    split = {entry.path: entry.split for entry in entries}
    near = summary["near_duplicates"]
    assert (near["n_pairs"], near["n_pairs_left_apart"]) == (7, 7)
    assert near["n_pairs_in_two_splits"] == sum(
        split[one] != split[other] for one, other in near["pairs_left_apart"]
    )
    assert "7 near-duplicate pair(s) were left in two groups" in caplog.text


def test_the_card_leaves_near_duplicates_apart(project: Paths) -> None:
    scene(30).resize((50, 50)).save(raw(project) / "elm" / "small.png")
    card = project.task("tiles").card
    card.write_text(card.read_text(encoding="utf-8") + "near_duplicates: warn\n")
    entries, summary, _ = run(project)
    group = {entry.path: entry.group for entry in entries}
    assert group["elm/small.png"] == "elm/small.png"
    near = summary["near_duplicates"]
    assert (near["n_pairs"], near["n_pairs_left_apart"]) == (1, 1)


@pytest.mark.parametrize("is_stated", [False, True])
def test_two_classes_under_a_fixed_camera_are_prepared(
    project: Paths, is_stated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(raw(project))
    rng, rows = np.random.default_rng(8), ["path,label,group"]
    for label in ("oak", "elm"):
        (raw(project) / label).mkdir(parents=True)
        for index in range(14):
            image = part(CAMERAS["shaken"], rng, index, is_scratched=label == "elm")
            path = f"{label}/part{index:03d}.jpg"
            (raw(project) / path).write_bytes(jpeg(image))
            rows.append(f"{path},{label},{label}{index // 2}")
    if is_stated:
        (raw(project) / "records.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        entries, summary, _ = run(project, classes=("oak", "elm"))
    assert len(entries) == 28
    assert [scene["n_images"] for scene in summary["near_duplicates"]["scenes"]] == [28]
    assert "28 images look alike as under a fixed camera" in caplog.text
    n_groups = summary["n_groups"]["total"]
    assert n_groups == 14 if is_stated else n_groups >= 24


def test_group_of_two_labels_stays_together_and_is_warned_of(
    project: Paths, caplog: pytest.LogCaptureFixture
) -> None:
    scene(960).save(raw(project) / "ash" / "t001_other.jpg")
    with caplog.at_level(logging.WARNING):
        entries, summary, _ = run(project)
    assert len({entry.split for entry in entries if entry.group == "t001"}) == 1
    assert summary["n_groups_of_several_labels"] == 1
    assert "1 group(s) hold images of several labels" in caplog.text


def test_classes_choose_the_labels_and_their_order(project: Paths) -> None:
    entries, summary, _ = run(project, classes=("ash", "oak"))
    assert summary["labels"] == ["ash", "oak"]
    assert {entry.label for entry in entries} == {"ash", "oak"}
    sheets = sorted(path.stem for path in project.task("tiles").contact_dir.iterdir())
    assert sheets == ["ash", "oak"]


def keep(folder: Path, n: int) -> None:
    for path in sorted(folder.iterdir())[n:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: shutil.rmtree(d / "elm"), r"no image of class elm.*classes: \[oak, ash\]"),
        (lambda d: keep(d / "elm", 1), r"class 'elm' has 1 group\(s\) with 1 image"),
        (lambda d: keep(d / "elm", 4), r"class 'elm' has 2 group\(s\) with 4 image"),
        (
            lambda d: [shutil.rmtree(d / name) for name in ("elm", "ash")],
            "no image of class elm, ash",
        ),
        (lambda d: (d / "SOURCE.json").write_text("[]"), "SOURCE.json: expected"),
        (
            lambda d: (d / "records.csv").write_text(
                "path,label\nelm/1.png,elm\nelm/1.png,ash\na,oak\n"
            ),
            r"1 path\(s\) are listed more than once \('elm/1.png'\)",
        ),
    ],
)
def test_data_set_that_cannot_be_used_is_refused(project: Paths, spoil: Any, message: str) -> None:
    spoil(raw(project))
    with pytest.raises(DataError, match=message) as caught:
        run(project)
    assert "\n" not in str(caught.value)
    assert not project.task("tiles").prepared_dir.exists()


def test_class_that_the_card_does_not_know_is_refused(project: Paths) -> None:
    with pytest.raises(ConfigError, match=r"classes: yew is not in .*card.yaml.*oak, elm, ash"):
        run(project, classes=("oak", "yew"))


def test_nothing_fetched_names_the_command(project: Paths) -> None:
    shutil.rmtree(raw(project))
    with pytest.raises(MissingDataError, match="fieldlens fetch tiles"):
        run(project)


def test_data_source_comes_from_what_fetch_wrote(project: Paths) -> None:
    (raw(project) / "SOURCE.json").write_text('{"kind": "sample"}', encoding="utf-8")
    assert run(project)[1]["data_source"] == "sample"


def test_exif_rotated_copy_is_a_near_duplicate_of_the_upright_one(project: Paths) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    turned = scene(25).transpose(Image.Transpose.ROTATE_90)
    turned.save(raw(project) / "elm" / "turned.jpg", exif=tags, quality=90)
    entries, summary, _ = run(project)
    assert summary["n_exif_rotated"] == 1
    assert {entry.group for entry in entries if "turned" in entry.path} == {"t013"}


def test_every_planted_fault_of_a_painted_sample_is_found(tmp_path: Path) -> None:
    files = Paths(tmp_path).task("cats_dogs")
    files.card.parent.mkdir(parents=True)
    shutil.copy(ROOT / "datasets/cats_dogs/card.yaml", files.card)
    card = load_card(files.card)
    source = SampleSource(kind="sample", images_per_class=24, images_per_group=4, side_px=96)
    files.raw_dir.mkdir()
    write_sample(files.raw_dir, cats_dogs.paint, card, source, SEED, card.labels)

    prepare.run("cats_dogs", "reference", params(), SEED, Paths(tmp_path))

    group = {entry.path: entry.group for entry in read_manifest(files.manifest)}
    with files.quarantine.open(encoding="utf-8", newline="") as stream:
        refused = {row["path"] for row in csv.DictReader(stream)}
    planted = json.loads((files.raw_dir / "planted.json").read_text(encoding="utf-8"))
    kinds = {fault["fault"] for fault in planted}
    assert {"exact_duplicate", "near_duplicate", "conflicting_duplicate", "truncated"} <= kinds
    explained = set()
    for fault in planted:
        path, of = fault["path"], fault["of"]
        match fault["fault"]:
            case "near_duplicate":
                assert group[path] == group[of]
            case "exact_duplicate":
                assert (path in refused) != (of in refused)
                explained |= {path, of}
            case "conflicting_duplicate":
                assert {path, of} <= refused
                explained |= {path, of}
            case "truncated":
                assert path in refused
                explained.add(path)
            case _:
                assert path in group
    assert refused <= explained


# -- scans ----------------------------------------------------------------------------------------
def test_patients_are_kept_together_and_nobody_is_named(project, caplog):
    """Three classes of six patients with two scans each, under a name that says otherwise."""
    caplog.set_level(logging.DEBUG)
    shutil.rmtree(raw(project))
    for at, label in enumerate(("oak", "elm", "ash")):
        (raw(project) / label).mkdir(parents=True)
        for patient, n in itertools.product(range(6), range(2)):
            data = scan(100 * at + 10 * patient + n, f"{SECRETS[1]}-{at}{patient}")
            (raw(project) / label / f"{n}{patient}.jpg").write_bytes(data)
    entries, _, _ = run(project)
    groups = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    assert len(entries) == 36
    assert len(groups) == 18
    for name, members in groups.items():
        assert name == f"patient of {members[0].path}"
        assert len({(member.label, member.path[-5]) for member in members}) == 1
        assert len({member.split for member in members}) == 1
    first = file_tree(project.task("tiles").prepared_dir)
    run(project)
    assert file_tree(project.task("tiles").prepared_dir) == first
    for secret in SECRETS:
        assert not any(secret.encode() in data for data in first.values())
        assert secret not in caplog.text


# -- deep pixels and long pictures ----------------------------------------------------------------
def make_deep(project: Paths, n: int = 60) -> list[Path]:
    """Some of the scenes again, with 12 bits in 16."""
    files = sorted(raw(project).rglob("*.jpg"))[:n]
    made = []
    for number, file in enumerate(files):
        grey = np.asarray(Image.open(file).convert("L"), np.uint16) * np.uint16(15) + np.uint16(20)
        grey[0, 0] = 3000 + number
        Image.fromarray(grey).save(file.with_suffix(".png"))
        file.unlink()
        made.append(file.with_suffix(".png"))
    return made


def state(project: Paths, facts: str) -> None:
    card = project.task("tiles").card
    text = card.read_text(encoding="utf-8").replace("bit_depth: 8}", f"bit_depth: 8, {facts}}}")
    card.write_text(text, encoding="utf-8")


def test_deep_files_without_a_range_stop_the_stage_with_the_one_that_they_have(project):
    made = make_deep(project, 7)
    values = np.concatenate([np.asarray(Image.open(file)).ravel() for file in made])
    with pytest.raises(DataError) as caught:
        run(project)
    message = str(caught.value)
    assert "7 image(s) have more than 8 bits a channel" in message
    assert repr(made[0].relative_to(raw(project)).as_posix()) in message
    proposed = f"range: {{low: {values.min()}, high: {values.max()}}}"
    assert f"`{proposed}`" in message
    assert str(project.task("tiles").card) in message
    assert "\n" not in message
    assert not project.task("tiles").prepared_dir.exists()
    # What it proposes is what it takes.
    state(project, proposed)
    entries, summary, refused = run(project)
    assert (len(entries), refused) == (60, {})
    assert summary["reading"] == {"range": [float(values.min()), float(values.max())]}
    found = read_summary(project.task("tiles").prepare_summary).reading
    assert found == Reading(range=(float(values.min()), float(values.max())))


def test_files_that_leave_the_range_are_told(project, caplog):
    make_deep(project)
    state(project, "range: {low: 0, high: 3010}")
    with caplog.at_level(logging.WARNING):
        entries, _, refused = run(project)
    assert (len(entries), refused) == (60, {})
    assert "leave the range" in caplog.text
    assert "0..3010 of the training data" in caplog.text


def test_pictures_without_a_sensible_view_are_refused_and_counted(project):
    for number in range(3):
        Image.new("RGB", (20, 600 + number)).save(raw(project) / "elm" / f"t900_{number}.png")
    entries, summary, refused = run(project)
    assert len(entries) == 60
    assert summary["quarantine"]["unreadable"] == 3
    assert all("image.max_aspect" in reason for reason in refused.values())
    state(project, "max_aspect: 40")
    entries, summary, refused = run(project)
    assert len(entries) > 60
    assert summary["reading"] == {"max_aspect": 40.0}

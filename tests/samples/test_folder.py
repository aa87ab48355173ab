from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipelines.card import DatasetCard, SampleSource, load_card
from pipelines.data.images import open_image
from pipelines.data.manifest import read_raw
from pipelines.errors import ConfigError, CorruptImageError, DataError
from pipelines.samples import cats_dogs
from pipelines.samples.folder import (
    IN_PLACE,
    MIN_IMAGES_FOR_FAULTS,
    Painter,
    encode,
    frame,
    group_id,
    plan,
    write_sample,
)
from tests.file_tree import file_tree

ROOT = Path(__file__).resolve().parents[2]
SEED = 5
LABEL_FAULTS = {*IN_PLACE, "exact_duplicate", "near_duplicate", "truncated"}


def source(images: int = MIN_IMAGES_FOR_FAULTS, group: int = 4, side_px: int = 64) -> SampleSource:
    return SampleSource(
        kind="sample", images_per_class=images, images_per_group=group, side_px=side_px
    )


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(ROOT / "datasets/chest_xray/card.yaml")


@pytest.fixture(scope="module")
def painter() -> Painter:
    """Its pictures are quick: tiles in colours that the subject draws."""

    def paint(label, subject, shot, side_px):
        tiles = subject.integers(0, 256, size=(6, 6, 3), dtype=np.uint8)
        picture = np.asarray(Image.fromarray(tiles).resize((side_px, side_px))).astype(np.int16)
        picture = picture + shot.integers(-9, 10, size=(1, 1, 3)) + len(label)
        return Image.fromarray(picture.clip(0, 255).astype(np.uint8))

    return paint


@pytest.fixture(scope="module")
def sample(card, painter, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder, painter, card, source(), SEED, card.labels)
    return folder


def planted(folder: Path) -> list[dict[str, str]]:
    return json.loads((folder / "planted.json").read_text(encoding="utf-8"))


# -- the plan -------------------------------------------------------------------------------------
@given(images=st.integers(4, 60), group=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_plan_is_the_same_size_in_each_class_and_mixes_nothing_up(card, images, group, seed):
    sheets, faults = plan(card, source(images, group), seed, card.labels)
    assert len({sheet.path for sheet in sheets}) == len(sheets)
    for sheet in sheets:
        # Nobody states the group of a near duplicate.
        is_alone = sheet.form == "near_duplicate"
        assert (sheet.group == sheet.path) == is_alone
        assert is_alone or sheet.path.startswith(f"{sheet.label}/{sheet.group}_")
    owners = {(sheet.group, sheet.label) for sheet in sheets}
    assert len({name for name, _ in owners}) == len(owners), "a group has one label"
    is_faulty = images >= MIN_IMAGES_FOR_FAULTS
    for label in card.labels:
        own = [fault.fault for fault in faults if fault.path.startswith(f"{label}/")]
        assert set(own) - {"conflicting_duplicate"} == (LABEL_FAULTS if is_faulty else set())
        plain = [sheet for sheet in sheets if sheet.label == label and not sheet.copy_of]
        extra = {"near_duplicate", "truncated"}
        assert len([sheet for sheet in plain if sheet.form not in extra]) == images
        forms = Counter(sheet.form for sheet in plain)
        assert forms == Counter(
            sheet.form for sheet in sheets if sheet.label == card.labels[0] and not sheet.copy_of
        )
    assert [fault.fault for fault in faults].count("conflicting_duplicate") == is_faulty


@given(group=st.integers(1, 7))
def test_source_tells_nothing_about_the_class(card, group):
    sheets, _ = plan(card, source(40, group), SEED, card.labels)
    kept = [sheet for sheet in sheets if not sheet.copy_of and sheet.form != "truncated"]
    counts = [
        Counter(sheet.source for sheet in kept if sheet.label == label)["camera_a"]
        for label in card.labels
    ]
    assert max(counts) - min(counts) <= 1
    assert 15 <= min(counts) <= max(counts) <= 26


def test_group_id_is_unique_over_the_labels_and_named_after_the_key(card):
    names = [group_id(card, label, subject) for subject in range(400) for label in card.labels]
    assert len(set(names)) == len(names)
    assert names[:4] == ["patient000", "patient001", "patient002", "patient003"]


def test_a_group_without_letters_still_has_a_name(card):
    odd = card.model_copy(update={"group_key": "†"})
    assert group_id(odd, "covid19", 1) == "group003"


# -- the files ------------------------------------------------------------------------------------
def picture(width_px: int = 90, height_px: int = 64) -> Image.Image:
    x, y = np.meshgrid(np.linspace(40, 220, width_px), np.linspace(40, 220, height_px))
    return Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))


@pytest.mark.parametrize(
    ("form", "file_format", "mode", "is_turned", "tolerance"),
    [
        ("jpeg", "JPEG", "RGB", False, 8),
        ("png", "PNG", "RGB", False, 0),
        ("wrong_suffix", "PNG", "RGB", False, 0),
        ("exif_rotated", "JPEG", "RGB", True, 8),
        ("cmyk", "JPEG", "CMYK", False, 20),
        ("grey", "PNG", "L", False, None),
        ("near_duplicate", "JPEG", "RGB", False, None),
    ],
)
def test_encode_gives_a_file_that_opens_as_the_same_picture(
    form, file_format, mode, is_turned, tolerance
):
    opened = open_image(encode(picture(), form, quality=92))
    assert (opened.format, opened.mode, opened.is_exif_rotated) == (file_format, mode, is_turned)
    if is_turned:
        assert (opened.width_px, opened.height_px) == (64, 90), "stored on its side"
    if tolerance is not None:
        seen = np.asarray(opened.rgb).astype(int)
        assert np.abs(seen - np.asarray(picture()).astype(int)).max() <= tolerance
    if form == "grey":
        grey = np.asarray(picture().convert("L")).astype(int)
        assert np.abs(np.asarray(opened.rgb)[..., 0].astype(int) - grey).max() <= 1


def test_encode_truncated_does_not_open():
    with pytest.raises(CorruptImageError, match="truncated"):
        open_image(encode(picture(), "truncated", quality=92))


@given(seed=st.integers(0, 2**32 - 1), side_px=st.integers(32, 96))
def test_frame_keeps_the_shorter_side_and_the_aspect_near_to_square(seed, side_px):
    square = Image.new("RGB", (side_px, side_px), (90, 120, 30))
    framed = frame(square, np.random.default_rng(seed), side_px)
    assert min(framed.size) >= side_px
    assert max(framed.size) <= side_px * 1.1 / 0.85 + 1
    assert framed.getextrema() == ((90, 90), (120, 120), (30, 30)), "nothing is padded"


# -- the folder -----------------------------------------------------------------------------------
def test_records_name_every_image_and_read_raw_takes_them(sample, card):
    names = {name for name in file_tree(sample) if name not in {"records.csv", "planted.json"}}
    with (sample / "records.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["path"] for row in rows} == names
    assert [row["path"] for row in rows] == sorted(names)
    assert {record.label for record in read_raw(sample, card)} == set(card.labels)


def test_planted_faults_are_what_they_are_called(sample):
    for fault in planted(sample):
        data = (sample / fault["path"]).read_bytes()
        other = (sample / fault["of"]).read_bytes() if fault["of"] else b""
        kind, own = fault["fault"], fault["path"].split("/")[0]
        if kind in {"exact_duplicate", "conflicting_duplicate"}:
            assert data == other
            assert (fault["of"].split("/")[0] != own) == (kind == "conflicting_duplicate")
        elif kind == "near_duplicate":
            assert data != other
            groups = {name.rpartition("_")[0] for name in (fault["path"], fault["of"])}
            assert len(groups) == 2
        elif kind == "wrong_suffix":
            assert fault["path"].endswith(".jpg")
            assert data.startswith(b"\x89PNG")


def test_same_seed_same_bytes_and_another_seed_other_bytes(sample, card, painter, tmp_path):
    write_sample(tmp_path / "same", painter, card, source(), SEED, card.labels)
    write_sample(tmp_path / "other", painter, card, source(), SEED + 1, card.labels)
    assert file_tree(tmp_path / "same") == file_tree(sample)
    other = file_tree(tmp_path / "other")
    shared = [name for name, sha in file_tree(sample).items() if other.get(name) == sha]
    assert shared == []


def test_a_class_is_the_same_whichever_classes_are_painted_beside_it(
    sample, card, painter, tmp_path
):
    write_sample(tmp_path, painter, card, source(), SEED, ("pneumonia",))
    alone = {name: sha for name, sha in file_tree(tmp_path).items() if name.startswith("pneumonia")}
    assert alone
    assert alone.items() <= file_tree(sample).items()


def test_workers_do_not_change_the_bytes(card, tmp_path, monkeypatch):
    few = source(4, 2)
    for workers in ("1", "2"):
        monkeypatch.setenv("FIELDLENS_WORKERS", workers)
        write_sample(tmp_path / workers, cats_dogs.paint, cats_card(), few, SEED, ("dogs", "cats"))
    assert file_tree(tmp_path / "1") == file_tree(tmp_path / "2")


def test_a_label_that_the_card_lacks_is_refused(card, painter, tmp_path):
    with pytest.raises(ConfigError, match=r"chest_xray: the card has no class unicorn to paint"):
        write_sample(tmp_path, painter, card, source(), SEED, ("covid19", "unicorn"))
    assert list(tmp_path.iterdir()) == []


def test_a_label_of_the_card_that_the_painter_lacks_is_refused(card, tmp_path):
    with pytest.raises(DataError, match=r"no picture for the class 'covid19'.*samples/chest_xray"):
        write_sample(tmp_path, cats_dogs.paint, card, source(), SEED, card.labels)


def cats_card() -> DatasetCard:
    return load_card(ROOT / "datasets/cats_dogs/card.yaml")

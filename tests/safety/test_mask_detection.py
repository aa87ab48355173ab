from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.errors import DataError
from pipelines.safety import mask_detection

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/mask_detection/card.yaml"
LABELS = ("with_mask", "without_mask", "mask_worn_incorrectly")
SIDE_PX = 128


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def painted(label: str, subject: int = 1, shot: int = 2, side_px: int = SIDE_PX) -> Image.Image:
    return mask_detection.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )


def pixels(*args, **kwargs) -> np.ndarray:
    return np.asarray(painted(*args, **kwargs)).astype(np.float64)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (90, 60, 30)).save(path)


def test_card_lists_the_labels_that_can_be_painted(card):
    assert card.labels == LABELS


def test_card_says_that_nobody_consented(card):
    assert "did not consent" in card.consent_and_privacy


def test_paint_unknown_label_is_refused():
    with pytest.raises(DataError, match=r"no painter for 'visor'.*with_mask, without_mask"):
        painted("visor")


def test_label_changes_the_face_and_leaves_hair_and_background():
    for shot in range(8):
        masked, bare = pixels("with_mask", shot=shot), pixels("without_mask", shot=shot)
        difference = np.abs(masked - bare).max(axis=-1)
        assert (difference > 40).mean() > 0.02, "a mask must be seen"
        assert (difference[: SIDE_PX // 4] > 40).mean() < 0.01, "brow and hair are no evidence"


def test_mean_brightness_does_not_tell_the_class():
    means = {
        label: [pixels(label, subject=k, shot=99 + k).mean() for k in range(24)] for label in LABELS
    }
    spread = np.std(means["without_mask"])
    for label in ("with_mask", "mask_worn_incorrectly"):
        assert abs(np.mean(means[label]) - np.mean(means["without_mask"])) < spread / 2


def test_records_maps_folder_names_and_each_file_is_its_own_group(tmp_path, card):
    save(tmp_path / "With Mask" / "0-with-mask.jpg")
    save(tmp_path / "without_mask" / "1.png")
    save(tmp_path / "mask_weared_incorrect" / "2.jpeg")
    (tmp_path / "without_mask" / "notes.txt").write_text("no image")
    assert mask_detection.records(tmp_path, card) == [
        Record("With Mask/0-with-mask.jpg", "with_mask", "With Mask/0-with-mask.jpg"),
        Record(
            "mask_weared_incorrect/2.jpeg", "mask_worn_incorrectly", "mask_weared_incorrect/2.jpeg"
        ),
        Record("without_mask/1.png", "without_mask", "without_mask/1.png"),
    ]


def test_records_believes_a_table_with_groups(tmp_path, card):
    save(tmp_path / "a.jpg")
    (tmp_path / "records.csv").write_text(
        "path,label,group,source\na.jpg,incorrect_mask,person_7,phone\n", encoding="utf-8"
    )
    assert mask_detection.records(tmp_path, card) == [
        Record("a.jpg", "mask_worn_incorrectly", "person_7", "phone")
    ]


def test_records_refuses_a_class_that_the_card_does_not_know(tmp_path, card):
    save(tmp_path / "visor" / "a.jpg")
    with pytest.raises(DataError, match=r"'visor'.*with_mask"):
        mask_detection.records(tmp_path, card)

from __future__ import annotations

import numpy as np
import pytest

from pipelines.card import load_card
from pipelines.errors import DataError
from pipelines.samples import mask_detection
from tests.published_set import PATHS, read


def test_published_folders_are_known_and_each_file_is_its_own_group(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    expected = {
        "With Mask/0-with-mask.jpg": "with_mask",
        "mask_weared_incorrect/2.jpeg": "mask_worn_incorrectly",
        "without_mask/1.png": "without_mask",
    }
    assert read("mask_detection", tmp_path, *expected) == {
        path: (label, path) for path, label in expected.items()
    }


def test_group_is_what_a_table_says(tmp_path):
    rows = "path,label,group,source\na.jpg,incorrect_mask,person_7,phone\n"
    (tmp_path / "records.csv").write_text(rows, encoding="utf-8")
    found = read("mask_detection", tmp_path, "a.jpg")
    assert found == {"a.jpg": ("mask_worn_incorrectly", "person_7")}


def test_class_that_the_card_does_not_know_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"'visor'.*with_mask"):
        read("mask_detection", tmp_path, "visor/a.jpg")


def test_card_says_that_nobody_consented():
    card = load_card(PATHS.task("mask_detection").card)
    assert "did not consent" in card.consent_and_privacy


def test_painted_mask_changes_the_face_and_leaves_brow_and_hair():
    for shot in range(8):
        masked, bare = (
            np.asarray(
                mask_detection.paint(
                    label, np.random.default_rng(1), np.random.default_rng(shot), 128
                )
            ).astype(int)
            for label in ("with_mask", "without_mask")
        )
        is_changed = np.abs(masked - bare).max(axis=-1) > 40
        assert is_changed.mean() > 0.02, "a mask must be seen"
        assert is_changed[:32].mean() < 0.01, "brow and hair are no evidence"

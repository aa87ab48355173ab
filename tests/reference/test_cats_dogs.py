from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.reference import cats_dogs

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/cats_dogs/card.yaml"
LABELS = ("cats", "dogs")


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def pixels(label: str, subject: int = 1, shot: int = 2, side_px: int = 128) -> np.ndarray:
    image = cats_dogs.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )
    assert (image.mode, image.size) == ("RGB", (side_px, side_px))
    return np.asarray(image).astype(float)


def test_card_lists_the_labels_that_can_be_painted(card):
    assert card.labels == LABELS
    assert card.licence.spdx == "NOASSERTION"
    assert card.group_key == "animal"


def test_records_reads_the_published_folders(card, tmp_path):
    for name in ("cat/cat.4111.jpg", "dogs/dog.7.jpg"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    assert cats_dogs.records(tmp_path, card) == [
        Record("cat/cat.4111.jpg", "cats", "cat/cat.4111.jpg"),
        Record("dogs/dog.7.jpg", "dogs", "dogs/dog.7.jpg"),
    ]


@pytest.mark.parametrize("label", LABELS)
def test_paint_is_repeatable_and_varies_with_subject_and_shot(label):
    one = pixels(label)
    assert np.array_equal(one, pixels(label))
    assert not np.array_equal(one, pixels(label, subject=3))
    assert not np.array_equal(one, pixels(label, shot=3))


@pytest.mark.parametrize("seed", range(4))
def test_the_head_tells_the_class_and_the_room_does_not(seed):
    cat, dog = pixels("cats", seed, seed), pixels("dogs", seed, seed)
    assert np.abs(cat.mean((0, 1)) - dog.mean((0, 1))).max() < 20
    # Exposure differs a little with what the head hides; what is left after it is the room.
    gain = np.median(cat[:64, :6] / np.maximum(dog[:64, :6], 1))
    difference = np.abs(cat - dog * gain)
    assert difference[32:96, 32:96].mean() > 3 * difference[:64, :6].mean()

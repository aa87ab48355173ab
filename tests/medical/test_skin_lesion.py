from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.medical import skin_lesion

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/skin_lesion/card.yaml"
DIAGNOSES = {
    "akiec": "actinic_keratosis",
    "bcc": "basal_cell_carcinoma",
    "bkl": "benign_keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular_lesion",
}
LABELS = tuple(DIAGNOSES.values())


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def pixels(label: str, subject: int = 1, shot: int = 2, side_px: int = 128) -> np.ndarray:
    image = skin_lesion.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )
    assert (image.mode, image.size) == ("RGB", (side_px, side_px))
    return np.asarray(image).astype(float)


def test_card_says_what_it_is_and_what_it_is_not(card):
    assert card.labels == LABELS
    assert card.licence.spdx == "CC-BY-NC-4.0"
    assert card.citation.doi == "10.1038/sdata.2018.161"
    assert any("not a medical device" in line.lower() for line in card.not_for)
    assert all("clinician" in step for step in card.next_steps.values())


@pytest.mark.parametrize(("short", "label"), DIAGNOSES.items())
def test_records_reads_folders_named_as_the_publisher_does(card, tmp_path, short, label):
    (tmp_path / short).mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / short / "ISIC_0032135.jpg")
    path = f"{short}/ISIC_0032135.jpg"
    assert skin_lesion.records(tmp_path, card) == [Record(path, label, path)]


def test_records_believes_the_lesion_in_records_csv(card, tmp_path):
    rows = "path,label,group\nISIC_1.jpg,nv,HAM_0000001\nISIC_2.jpg,nv,HAM_0000001\n"
    (tmp_path / "records.csv").write_text(rows, encoding="utf-8")
    assert {record.group for record in skin_lesion.records(tmp_path, card)} == {"HAM_0000001"}


@pytest.mark.parametrize("label", LABELS)
def test_paint_is_repeatable_and_varies_with_subject_and_shot(label):
    one = pixels(label)
    assert np.array_equal(one, pixels(label))
    assert not np.array_equal(one, pixels(label, subject=3))
    assert not np.array_equal(one, pixels(label, shot=3))


@pytest.mark.parametrize("label", LABELS)
def test_the_lesion_differs_from_the_skin_around_it(label):
    picture = pixels(label, side_px=160)
    inside, corners = picture[56:104, 56:104], picture[:16, :16]
    assert np.abs(inside.mean((0, 1)) - corners.mean((0, 1))).max() > 10
    assert inside.std((0, 1)).max() > 1.5 * corners.std((0, 1)).max()


@pytest.mark.parametrize("subject", range(3))
def test_mean_colour_does_not_tell_the_class(subject):
    means = np.array([pixels(label, subject).mean((0, 1)) for label in LABELS])
    assert np.ptp(means, axis=0).max() < 12, "levels of 255; exposures differ by 40 and more"


def test_labels_are_seven_pictures():
    pictures = [pixels(label) for label in LABELS]
    for index, one in enumerate(pictures):
        for other in pictures[index + 1 :]:
            assert np.abs(one - other).mean() > 2

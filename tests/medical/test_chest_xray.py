from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.medical import chest_xray

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/chest_xray/card.yaml"
LABELS = ("covid19", "no_finding", "pneumonia")


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def pixels(label: str, subject: int = 1, shot: int = 2, side_px: int = 128) -> np.ndarray:
    image = chest_xray.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )
    assert (image.mode, image.size) == ("RGB", (side_px, side_px))
    return np.asarray(image).astype(float)


def shadow(label: str, subject: int) -> tuple[float, float]:
    """Light that the disease adds to the left and to the right half, at the same exposure."""
    sick, clear = pixels(label, subject)[..., 0], pixels("no_finding", subject)[..., 0]
    # Exposure darkens the whole of the sick picture; the abdomen shows by how much.
    gain = np.median(clear[-20:, 40:88] / np.maximum(sick[-20:, 40:88], 1))
    added = np.clip(sick * gain - clear, 8, None) - 8
    return float(added[:, :64].mean()), float(added[:, 64:].mean())


def test_card_says_what_it_is_not(card):
    assert card.labels == LABELS
    assert any("not a medical device" in line.lower() for line in card.not_for)
    assert "clinician" in " ".join(card.next_steps.values())


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("Covid-19", "covid19"),
        ("COVID-19", "covid19"),
        ("No_findings", "no_finding"),
        ("NORMAL", "no_finding"),
        ("Pneumonia", "pneumonia"),
        ("Viral Pneumonia", "pneumonia"),
        ("tuberculosis", None),
    ],
)
def test_card_knows_the_folder_names_of_published_copies(card, folder, label):
    assert card.label_of(folder) == label


def test_records_reads_a_published_folder(card, tmp_path):
    for name in ("Covid-19/a.jpg", "No_findings/00000032_037.png", "Pneumonia/b.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert chest_xray.records(tmp_path, card) == [
        Record("Covid-19/a.jpg", "covid19", "Covid-19/a.jpg"),
        Record("No_findings/00000032_037.png", "no_finding", "00000032"),
        Record("Pneumonia/b.png", "pneumonia", "Pneumonia/b.png"),
    ]


@pytest.mark.parametrize("label", LABELS)
def test_paint_is_grey_and_repeatable(label):
    one = pixels(label)
    assert (one == one[..., :1]).all()
    assert np.array_equal(one, pixels(label))
    assert not np.array_equal(one, pixels(label, subject=3))
    assert not np.array_equal(one, pixels(label, shot=3))


@pytest.mark.parametrize("label", LABELS)
def test_lungs_are_darker_than_what_lies_between_and_below(label):
    grey = pixels(label, side_px=160)[..., 0]
    upper_lungs = np.r_[grey[45:60, 45:62].ravel(), grey[45:60, 100:115].ravel()].mean()
    assert upper_lungs < 0.75 * grey[60:100, 76:84].mean()
    assert upper_lungs < 0.85 * grey[-18:-6, 50:110].mean()


@pytest.mark.parametrize("subject", range(6))
def test_pneumonia_is_one_sided_and_covid19_is_not(subject):
    one, other = sorted(shadow("pneumonia", subject))
    assert other > 3 * one
    one, other = sorted(shadow("covid19", subject))
    assert other < 3 * one


@pytest.mark.parametrize("subject", range(3))
def test_mean_brightness_does_not_tell_the_class(subject):
    means = [pixels(label, subject).mean() for label in LABELS]
    assert max(means) - min(means) < 8, "levels of 255; exposures differ by 50"

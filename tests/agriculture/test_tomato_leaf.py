from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.agriculture import tomato_leaf
from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.errors import DataError

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/tomato_leaf/card.yaml"
LABELS = (
    "bacterial_spot",
    "early_blight",
    "healthy",
    "late_blight",
    "leaf_mold",
    "mosaic_virus",
    "septoria_leaf_spot",
    "spider_mites",
    "target_spot",
    "yellow_leaf_curl_virus",
)
SIDE_PX = 96


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def painted(label: str, subject: int = 1, shot: int = 2, side_px: int = SIDE_PX) -> Image.Image:
    return tomato_leaf.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )


def pixels(*args, **kwargs) -> np.ndarray:
    return np.asarray(painted(*args, **kwargs)).astype(np.float64)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (40, 90, 40)).save(path)


def test_card_lists_the_labels_that_can_be_painted(card):
    assert card.labels == LABELS


def test_card_next_steps_name_no_dose(card):
    for step in card.next_steps.values():
        assert not any(character.isdigit() for character in step)


def test_paint_ground_is_the_same_for_all_labels():
    # The corners show what the leaf lies on. A class must not be known by it.
    corners = np.array([pixels(label, shot=5)[:4, :4] for label in LABELS])
    assert np.ptp(corners, axis=0).max() < 2


def test_paint_leaf_keeps_its_lesions_from_shot_to_shot():
    # Same generator for the subject, same leaf before it is laid down; another one, another leaf.
    leaf, again, other = (
        np.asarray(tomato_leaf._leaf("target_spot", np.random.default_rng(seed), SIDE_PX))
        for seed in (1, 1, 2)
    )
    assert (leaf == again).all()
    assert np.abs(leaf.astype(int) - other).mean() > 5


def test_paint_lesions_stay_inside_the_leaf():
    # Same outline and green; only what is inside differs between a sick and a healthy leaf.
    healthy, sick = (
        np.asarray(tomato_leaf._leaf(label, np.random.default_rng(1), SIDE_PX)).astype(int)
        for label in ("healthy", "septoria_leaf_spot")
    )
    assert (healthy[..., 3] == sick[..., 3]).all()
    is_leaf = healthy[..., 3] > 0
    share = (np.abs(healthy - sick).max(axis=-1) > 25)[is_leaf].mean()
    assert 0.03 < share < 0.5


def test_paint_mean_colour_does_not_tell_the_label():
    means = {
        label: np.mean([pixels(label, s, s + 50, 48).mean(axis=(0, 1)) for s in range(8)], axis=0)
        for label in LABELS
    }
    within = np.std([pixels("healthy", s, s + 50, 48).mean(axis=(0, 1)) for s in range(8)], axis=0)
    between = np.std(list(means.values()), axis=0)
    assert (between < within).all()


def test_paint_unknown_label_is_refused():
    with pytest.raises(DataError, match=r"no painter for 'rust'.*bacterial_spot, early_blight"):
        painted("rust")


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("Tomato___Bacterial_spot", "bacterial_spot"),
        ("Tomato_Early_blight", "early_blight"),
        ("Tomato___healthy", "healthy"),
        ("tomato___late_blight", "late_blight"),
        ("Tomato_Leaf_Mold", "leaf_mold"),
        ("Tomato__Tomato_mosaic_virus", "mosaic_virus"),
        ("Tomato_Septoria_leaf_spot", "septoria_leaf_spot"),
        ("Tomato___Spider_mites Two-spotted_spider_mite", "spider_mites"),
        ("Tomato_Spider_mites_Two_spotted_spider_mite", "spider_mites"),
        ("Tomato__Target_Spot", "target_spot"),
        ("Tomato__Tomato_YellowLeaf__Curl_Virus", "yellow_leaf_curl_virus"),
    ],
)
def test_records_published_folder_names_are_known(tmp_path, card, folder, label):
    save(tmp_path / folder / "leaf.JPG")
    assert [record.label for record in tomato_leaf.records(tmp_path, card)] == [label]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("c2d782db-6a77___GCREC_Bact.Sp 3263.JPG", "GCREC_Bact.Sp 326"),
        ("917d2a35-8054___GCREC_Bact.Sp 3264.JPG", "GCREC_Bact.Sp 326"),
        ("486eeb98-44bd___GCREC_Bact.Sp 3451.JPG", "GCREC_Bact.Sp 345"),
        ("b6256250-7248___GH_HL Leaf 452.JPG", "GH_HL Leaf 45"),
        ("b6256250-7248___GH_HL Leaf 452.1.JPG", "GH_HL Leaf 45"),
        ("7de93009-6180___RS_HL 7904_new30degFlipLR.JPG", "RS_HL 790"),
        ("7de93009-6180___2700323949_95aa2eaa01_o.jpg", None),
    ],
)
def test_records_group_is_ten_neighbouring_shots(tmp_path, card, name, group):
    folder = "Tomato___Spider_mites Two-spotted_spider_mite"
    save(tmp_path / folder / name)
    path = f"{folder}/{name}"
    assert tomato_leaf.records(tmp_path, card) == [Record(path, "spider_mites", group or path)]


def test_records_unknown_folder_is_refused(tmp_path, card):
    save(tmp_path / "Potato___Early_blight" / "leaf.jpg")
    with pytest.raises(DataError, match="Potato___Early_blight"):
        tomato_leaf.records(tmp_path, card)

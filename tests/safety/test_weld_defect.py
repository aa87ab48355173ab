from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.errors import DataError
from pipelines.safety import weld_defect

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/weld_defect/card.yaml"
LABELS = ("crack", "lack_of_penetration", "no_defect", "porosity")
SIDE_PX = 128


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def painted(label: str, subject: int = 1, shot: int = 2, side_px: int = SIDE_PX) -> Image.Image:
    return weld_defect.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )


def pixels(*args, **kwargs) -> np.ndarray:
    return np.asarray(painted(*args, **kwargs)).astype(np.float64)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), 90).save(path)


def test_card_lists_the_labels_that_can_be_painted(card):
    assert card.labels == LABELS


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("side_px", [96, 227])
def test_paint_gives_a_grey_square_in_rgb(label, side_px):
    image = painted(label, side_px=side_px)
    assert (image.mode, image.size) == ("RGB", (side_px, side_px))
    values = np.asarray(image)
    assert (values == values[..., :1]).all(), "a radiograph has no colour"
    assert values.std() > 5


def test_paint_unknown_label_is_refused():
    with pytest.raises(DataError, match=r"no painter for 'undercut'.*crack, lack_of_penetration"):
        painted("undercut")


@pytest.mark.parametrize(
    ("label", "low", "high"),
    # Shares of dark pixels within the picture: a flaw is small.
    [("crack", 0.001, 0.05), ("lack_of_penetration", 0.005, 0.12), ("porosity", 0.001, 0.08)],
)
def test_defect_is_there_and_small(label, low, high):
    for shot in range(6):
        view = weld_defect._View(320, 0.1, 0.0, 0.35)
        mask = weld_defect._DEFECTS[label](view, np.random.default_rng(shot))
        assert mask.shape == (320, 320)
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert low < (mask > 0.4).mean() < high


@pytest.mark.parametrize("label", [label for label in LABELS if label != "no_defect"])
def test_defect_stays_inside_the_seam(label):
    view = weld_defect._View(SIDE_PX, 0.3, 0.1, 0.35)
    _, across = view.along_across()
    for shot in range(6):
        mask = weld_defect._DEFECTS[label](view, np.random.default_rng(shot))
        assert mask[np.abs(across) > view.half_width + 0.06].max() < 0.1


def test_mean_brightness_does_not_tell_a_defect():
    clean = [pixels("no_defect", subject=k, shot=k).mean() for k in range(24)]
    for label in ("crack", "lack_of_penetration", "porosity"):
        flawed = [pixels(label, subject=k + 50, shot=k + 50).mean() for k in range(24)]
        assert abs(np.mean(flawed) - np.mean(clean)) < np.std(clean)


def test_records_takes_the_radiograph_from_the_name_and_maps_folders(tmp_path, card):
    save(tmp_path / "CR" / "RRT-30R_Img1_A80_S1_[3][22].png")
    save(tmp_path / "Lack of Penetration" / "RRT-30R_Img2_A80_S4_[12][84].png")
    save(tmp_path / "NoDifetto" / "bam5_Img2_A80_S4_[1][23].png")
    save(tmp_path / "porosity" / "without_a_radiograph.png")
    assert weld_defect.records(tmp_path, card) == [
        Record("CR/RRT-30R_Img1_A80_S1_[3][22].png", "crack", "RRT-30R"),
        Record(
            "Lack of Penetration/RRT-30R_Img2_A80_S4_[12][84].png", "lack_of_penetration", "RRT-30R"
        ),
        Record("NoDifetto/bam5_Img2_A80_S4_[1][23].png", "no_defect", "bam5"),
        Record(
            "porosity/without_a_radiograph.png", "porosity", "porosity/without_a_radiograph.png"
        ),
    ]


@pytest.mark.parametrize("folder", ["Difetto1", "Difetto2", "Difetto4"])
def test_records_refuses_a_folder_whose_meaning_is_disputed(tmp_path, card, folder):
    save(tmp_path / folder / "RRT-30R_Img1_A80_S1_[3][22].png")
    with pytest.raises(DataError, match=folder):
        weld_defect.records(tmp_path, card)

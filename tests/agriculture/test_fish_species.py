from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.agriculture import fish_species
from pipelines.card import DatasetCard, load_card
from pipelines.data.manifest import Record
from pipelines.errors import DataError

CARD_PATH = Path(__file__).resolve().parents[2] / "datasets/fish_species/card.yaml"
#: Cluster numbers of the published set.
FOLDERS = {
    "dascyllus_reticulatus": "fish_01",
    "plectroglyphidodon_dickii": "fish_02",
    "chromis_chrysura": "fish_03",
    "amphiprion_clarkii": "fish_04",
    "chaetodon_lunulatus": "fish_05",
    "chaetodon_trifascialis": "fish_06",
    "myripristis_kuntee": "fish_07",
    "acanthurus_nigrofuscus": "fish_08",
    "hemigymnus_fasciatus": "fish_09",
    "neoniphon_sammara": "fish_10",
}
LABELS = tuple(sorted(FOLDERS))
SIDE_PX = 96


@pytest.fixture(scope="module")
def card() -> DatasetCard:
    return load_card(CARD_PATH)


def painted(label: str, subject: int = 1, shot: int = 2, side_px: int = SIDE_PX) -> Image.Image:
    return fish_species.paint(
        label, np.random.default_rng(subject), np.random.default_rng(shot), side_px
    )


def pixels(*args, **kwargs) -> np.ndarray:
    return np.asarray(painted(*args, **kwargs)).astype(np.float64)


def cut_out(label: str, subject: int) -> np.ndarray:
    fish = fish_species._FISHES[label]
    return np.asarray(fish_species._fish(fish, np.random.default_rng(subject), SIDE_PX)).astype(int)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (40, 160, 140)).save(path)


def test_card_lists_the_labels_that_can_be_painted(card):
    assert card.labels == LABELS


@pytest.mark.parametrize("label", LABELS)
def test_paint_individual_differs_less_than_species(label):
    # The fish before it swims: the same one is the same, and one of its kind is nearer than others.
    fish, again, kin = cut_out(label, 1), cut_out(label, 1), cut_out(label, 2)
    assert (fish == again).all()
    to_kin = np.abs(fish - kin).mean()
    to_others = [np.abs(fish - cut_out(other, 1)).mean() for other in LABELS if other != label]
    assert 0 < to_kin < min(to_others)


@pytest.mark.parametrize("label", LABELS)
def test_paint_fish_fits_into_its_picture(label):
    opacity = cut_out(label, 1)[..., 3]
    rim = np.concatenate([opacity[0], opacity[-1], opacity[:, 0], opacity[:, -1]])
    assert rim.max() == 0
    assert 0.08 < (opacity > 0).mean() < 0.6


def test_paint_water_is_the_same_for_all_labels():
    # The corners show water and reef. A species must not be known by them.
    corners = np.array([pixels(label, shot=5)[:4, :4] for label in LABELS])
    assert np.ptp(corners, axis=0).max() < 2


def test_paint_fish_swim_either_way(monkeypatch):
    directions, placed = set(), fish_species.cutout.placed

    def spy(figure, **lay):
        directions.add(np.sign(lay["stretch"][0]))
        return placed(figure, **lay)

    monkeypatch.setattr(fish_species.cutout, "placed", spy)
    for shot in range(8):
        painted("chromis_chrysura", shot=shot, side_px=48)
    assert directions == {-1, 1}


def test_paint_unknown_label_is_refused():
    with pytest.raises(DataError, match=r"no painter for 'cod'.*acanthurus_nigrofuscus, amphi"):
        painted("cod")


@pytest.mark.parametrize("label", LABELS)
def test_records_cluster_folder_and_track(tmp_path, card, label):
    first, second = (
        f"{FOLDERS[label]}/fish_000034240001_{frame}.png" for frame in ("03226", "03227")
    )
    other = f"{label}/fish_004598827454_09791.png"
    for path in (first, second, other):
        save(tmp_path / path)
    assert fish_species.records(tmp_path, card) == sorted(
        [
            Record(first, label, "fish_000034240001"),
            Record(second, label, "fish_000034240001"),
            Record(other, label, "fish_004598827454"),
        ],
        key=lambda record: record.path,
    )


def test_records_file_without_a_track_is_a_group_of_its_own(tmp_path, card):
    save(tmp_path / "fish_08" / "diver.png")
    assert fish_species.records(tmp_path, card) == [
        Record("fish_08/diver.png", "acanthurus_nigrofuscus", "fish_08/diver.png")
    ]


def test_records_species_outside_the_card_is_refused(tmp_path, card):
    save(tmp_path / "fish_11" / "fish_000000010001_00001.png")
    with pytest.raises(DataError, match="fish_11"):
        fish_species.records(tmp_path, card)

from __future__ import annotations

from pipelines.card import load_card
from tests.published_set import PATHS, read


def test_published_folders_are_known_and_the_person_is_the_group(tmp_path):
    assert read(
        "face_spoof",
        tmp_path,
        "ClientRaw/0001_00_00_01_0.jpg",
        "spoof/0016_01_02_03_117.jpg",
        "live/other.jpg",
    ) == {
        "ClientRaw/0001_00_00_01_0.jpg": ("live", "0001"),
        "spoof/0016_01_02_03_117.jpg": ("spoof", "0016"),
        "live/other.jpg": ("live", "live/other.jpg"),
    }


def test_card_says_that_only_prints_were_tried():
    card = load_card(PATHS.task("face_spoof").card)
    assert card.alarms == {"spoof"}
    assert any("Only printed photographs" in line for line in card.known_biases)
    assert "Other attacks" in card.next_steps["live"]

from __future__ import annotations

import pytest

from pipelines.errors import DataError
from tests.published_set import read

#: Cluster numbers of the published set.
FOLDERS = {
    "fish_01": "dascyllus_reticulatus",
    "fish_02": "plectroglyphidodon_dickii",
    "fish_03": "chromis_chrysura",
    "fish_04": "amphiprion_clarkii",
    "fish_05": "chaetodon_lunulatus",
    "fish_06": "chaetodon_trifascialis",
    "fish_07": "myripristis_kuntee",
    "fish_08": "acanthurus_nigrofuscus",
    "fish_09": "hemigymnus_fasciatus",
    "fish_10": "neoniphon_sammara",
}


def test_cluster_folders_are_known_and_the_track_is_the_group(tmp_path):
    frames = {
        f"{folder}/fish_000034240001_0322{frame}.png": (label, "fish_000034240001")
        for folder, label in FOLDERS.items()
        for frame in (6, 7)
    }
    frames["chromis_chrysura/fish_004598827454_09791.png"] = (
        "chromis_chrysura",
        "fish_004598827454",
    )
    frames["fish_08/diver.png"] = ("acanthurus_nigrofuscus", "fish_08/diver.png")
    assert read("fish_species", tmp_path, *frames) == frames


def test_species_outside_the_card_is_refused(tmp_path):
    with pytest.raises(DataError, match="fish_11"):
        read("fish_species", tmp_path, "fish_11/fish_000000010001_00001.png")

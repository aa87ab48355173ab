from __future__ import annotations

import pytest

from pipelines.errors import DataError
from tests.published_set import read


def test_folders_are_known_and_the_radiograph_is_the_group(tmp_path):
    expected = {
        "CR/RRT-30R_Img1_A80_S1_[3][22].png": ("crack", "RRT-30R"),
        "Lack of Penetration/RRT-30R_Img2_A80_S4_[12][84].png": ("lack_of_penetration", "RRT-30R"),
        "NoDifetto/bam5_Img2_A80_S4_[1][23].png": ("no_defect", "bam5"),
        "porosity/without_a_radiograph.png": ("porosity", "porosity/without_a_radiograph.png"),
    }
    assert read("weld_defect", tmp_path, *expected) == expected


@pytest.mark.parametrize("folder", ["Difetto1", "Difetto2", "Difetto4"])
def test_folder_whose_meaning_is_disputed_is_refused(tmp_path, folder):
    with pytest.raises(DataError, match=folder):
        read("weld_defect", tmp_path, f"{folder}/RRT-30R_Img1_A80_S1_[3][22].png")

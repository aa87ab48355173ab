from __future__ import annotations

import pytest

from pipelines.card import load_card
from pipelines.errors import DataError
from tests.published_set import PATHS, read

FOLDERS = {
    "Tomato___Bacterial_spot": "bacterial_spot",
    "Tomato_Early_blight": "early_blight",
    "Tomato___healthy": "healthy",
    "tomato___late_blight": "late_blight",
    "Tomato_Leaf_Mold": "leaf_mold",
    "Tomato__Tomato_mosaic_virus": "mosaic_virus",
    "Tomato_Septoria_leaf_spot": "septoria_leaf_spot",
    "Tomato___Spider_mites Two-spotted_spider_mite": "spider_mites",
    "Tomato_Spider_mites_Two_spotted_spider_mite": "spider_mites",
    "Tomato__Target_Spot": "target_spot",
    "Tomato__Tomato_YellowLeaf__Curl_Virus": "yellow_leaf_curl_virus",
}


def test_published_folder_names_are_known(tmp_path):
    found = read("tomato_leaf", tmp_path, *(f"{folder}/leaf.JPG" for folder in FOLDERS))
    assert {path.split("/")[0]: label for path, (label, _) in found.items()} == FOLDERS


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
def test_group_is_ten_neighbouring_shots(tmp_path, name, group):
    path = f"Tomato___healthy/{name}"
    assert read("tomato_leaf", tmp_path, path) == {path: ("healthy", group or path)}


def test_other_plant_is_refused(tmp_path):
    with pytest.raises(DataError, match="Potato___Early_blight"):
        read("tomato_leaf", tmp_path, "Potato___Early_blight/leaf.jpg")


def test_next_steps_name_no_dose():
    for step in load_card(PATHS.task("tomato_leaf").card).next_steps.values():
        assert not any(character.isdigit() for character in step)

from __future__ import annotations

from pipelines.card import load_card
from tests.published_set import PATHS, read

DIAGNOSES = {
    "akiec": "actinic_keratosis",
    "bcc": "basal_cell_carcinoma",
    "bkl": "benign_keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "nevus",
    "vasc": "vascular_lesion",
}


def test_folders_named_as_the_publisher_does_are_known(tmp_path):
    found = read("skin_lesion", tmp_path, *(f"{short}/ISIC_0032135.jpg" for short in DIAGNOSES))
    assert found == {
        f"{short}/ISIC_0032135.jpg": (label, f"{short}/ISIC_0032135.jpg")
        for short, label in DIAGNOSES.items()
    }


def test_group_is_the_lesion_in_records_csv(tmp_path):
    rows = "path,label,group\nISIC_1.jpg,nv,HAM_0000001\nISIC_2.jpg,nv,HAM_0000001\n"
    (tmp_path / "records.csv").write_text(rows, encoding="utf-8")
    found = read("skin_lesion", tmp_path, "ISIC_1.jpg", "ISIC_2.jpg")
    assert set(found.values()) == {("nevus", "HAM_0000001")}


def test_card_forbids_commerce_as_its_licence_does():
    card = load_card(PATHS.task("skin_lesion").card)
    assert card.licence.spdx == "CC-BY-NC-4.0"
    assert card.citation.doi == "10.1038/sdata.2018.161"

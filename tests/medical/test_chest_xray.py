from __future__ import annotations

import pytest

from pipelines.errors import DataError
from tests.published_set import read


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("Covid-19", "covid19"),
        ("COVID-19", "covid19"),
        ("No_findings", "no_finding"),
        ("NORMAL", "no_finding"),
        ("Pneumonia", "pneumonia"),
        ("Viral Pneumonia", "pneumonia"),
    ],
)
def test_folder_names_of_published_copies_are_known(tmp_path, folder, label):
    assert read("chest_xray", tmp_path, f"{folder}/a.png") == {
        f"{folder}/a.png": (label, f"{folder}/a.png")
    }


def test_group_is_the_patient_in_the_name_of_the_nih(tmp_path):
    found = read("chest_xray", tmp_path, "No_findings/00000032_037.png", "Pneumonia/b.png")
    assert [group for _, group in found.values()] == ["00000032", "Pneumonia/b.png"]


def test_other_disease_is_refused(tmp_path):
    with pytest.raises(DataError, match="tuberculosis"):
        read("chest_xray", tmp_path, "tuberculosis/a.png")

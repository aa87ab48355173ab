from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.commands.survey import labels_for, slug
from pipelines.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Late blight (2021)", "late_blight_2021"),
        ("0", "class_0"),
        ("3mm_crack", "class_3mm_crack"),
        ("健康", "jian_kang"),
        ("здоровый", "zdorovyy"),
        ("Größenfehler", "grossenfehler"),
        ("+", "plus_sign"),
        ("-1", "minus_1"),
    ],
)
def test_slug_of_any_script(name: str, label: str) -> None:
    assert slug(name) == label


def test_names_that_sound_alike_are_numbered_and_signs_spelled_out() -> None:
    assert labels_for(["病", "并"], "x") == {"病": "bing", "并": "bing_2"}
    assert len(set(labels_for(["<10%", ">10%"], "x").values())) == 2
    assert labels_for(["-1", "0", "1"], "x") == {"-1": "minus_1", "0": "class_0", "1": "class_1"}


def test_names_that_differ_in_case_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match="would both be the label 'late_blight'"):
        labels_for(["Late blight", "late_blight"], "x")


@given(st.lists(st.text(min_size=1, max_size=80), unique=True, min_size=1, max_size=6))
def test_labels_are_slugs_and_distinct(names: list[str]) -> None:
    try:
        labels = labels_for(names, "x")
    except ConfigError:
        return
    assert len(set(labels.values())) == len(names)
    for label in labels.values():
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,59}", label)

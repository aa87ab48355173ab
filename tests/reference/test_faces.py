from __future__ import annotations

from pipelines.card import load_card
from tests.published_set import PATHS, read


def test_the_person_is_the_group_so_that_whole_persons_are_held_out(tmp_path):
    names = [f"s{person}/{n}.png" for person in range(6) for n in (1, 2)]
    assert read("faces", tmp_path, *names) == {name: ("picture", name[:2]) for name in names}


def test_card_warns_of_what_such_a_model_is_misused_for():
    words = " ".join(load_card(PATHS.task("faces").card).not_for)
    assert "tracking" in words
    assert "Access control" in words

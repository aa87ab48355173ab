from __future__ import annotations

from pipelines.plots.evaluation import drawable


def test_names_that_the_font_has_are_drawn_and_others_give_way_to_the_label() -> None:
    labels = ["jian_kang", "zdorovyy", "grossenfehler"]
    names = ["健康", "здоровый", "Größenfehler"]
    assert drawable(labels, names) == ["jian_kang", "здоровый", "Größenfehler"]

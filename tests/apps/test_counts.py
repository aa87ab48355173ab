"""The panel of boxes: counts, and the range beside each where the bundle has one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from apps.answers import PANELS
from apps.boxes import counted
from apps.texts import LANGUAGES, load_texts
from pipelines.serving.detection import Box, Boxes
from pipelines.serving.trust import BoxPoint

POINT = BoxPoint(threshold=0.4, recall=0.9, precision=0.9, n_boxes=80, count_band=(-1, 4))
BUNDLE = SimpleNamespace(labels=("rbc", "wbc"), box_points={"rbc": POINT}, name_of=str)
MODEL = SimpleNamespace(task="blood_cells", names={}, bundle=BUNDLE, card=None)


def box(label: str, score: float, threshold: float) -> Box:
    corners = {"x0": 0.0, "y0": 0.0, "x1": 9.0, "y1": 9.0}
    return Box(label=label, score=score, is_counted=score >= threshold, **corners)


SAID = Boxes(boxes=(box("rbc", 0.9, 0.4), box("wbc", 0.6, 0.5), box("rbc", 0.3, 0.4)))


def html(said: Boxes, language: str = "en") -> str:
    return PANELS["detection"](load_texts(language), MODEL, said, {})


def test_a_count_has_its_range_and_what_the_range_is():
    shown = html(SAID)
    assert '<span class="fl-n">1</span><b>Red cells</b><span>0 to 5</span>' in shown
    assert '<span class="fl-n">1</span><b>White cells</b></li>' in shown
    assert "95 of 100 pictures such as those kept aside" in shown


def test_a_moved_threshold_has_no_range():
    shown = html(counted(SAID, 0.2))
    assert '<span class="fl-n">2</span><b>Red cells</b></li>' in shown
    assert "95 of 100" not in shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_the_words(language):
    assert "95" in html(SAID, language)

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pipelines.card import load_card
from pipelines.kinds.detection.boxes import of_text
from pipelines.kinds.detection.prepare import PreparedDetection
from pipelines.samples import weld_photo
from tests.published_set import PATHS
from tests.samples.scenes import scenes

CARD = load_card(PATHS.task("weld_photo").card)


def test_published_names_are_read(tmp_path):
    (tmp_path / "data.yaml").write_text("names:\n  0: Bad Weld\n  1: Good Weld\n  2: Defect\n")
    for number in range(3):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
        Image.new("RGB", (40, 40)).save(tmp_path / f"images/{number}.jpg")
        (tmp_path / f"labels/{number}.txt").write_text(f"{number} 0.5 0.5 0.5 0.25\n")
    records = PreparedDetection().records(tmp_path, CARD)
    assert [record.label for record in records] == list(CARD.labels)
    assert tuple(of_text(records[0].truth)[0])[1:] == (10, 15, 30, 25)


@pytest.mark.parametrize("label", CARD.labels)
def test_a_plate_is_as_the_label_says_and_flaws_lie_at_beads(label):
    for marks in scenes(weld_photo.paint_marked, CARD, label, 64):
        beads = [box for name, box in marks if name != "defect"]
        for name, (x0, y0, x1, y1) in marks:
            sides = sorted((x1 - x0, y1 - y0))
            assert sides[0] > 0.06
            assert (sides[1] > 3 * sides[0]) == (name != "defect")
            near = [
                min(x1, b[2]) - max(x0, b[0]) > -0.05 and min(y1, b[3]) - max(y0, b[1]) > -0.05
                for b in beads
            ]
            assert any(near)


def test_flaws_lie_on_even_and_uneven_beads():
    found = set()
    for shot in range(60):
        generators = (np.random.default_rng(each) for each in (1, shot))
        _, marks = weld_photo.paint_marked("defect", *generators, 64)
        names = [name for name, _ in marks]
        found |= {a for a, b in pairwise(names) if b == "defect"}
    assert found == {"good_weld", "bad_weld"}


def test_card_says_that_backgrounds_tell_and_that_no_weld_is_cleared():
    assert any("background tells" in line for line in CARD.known_biases)
    assert "does not clear" in CARD.next_steps["good_weld"]
    assert CARD.alarms == {"bad_weld", "defect"}

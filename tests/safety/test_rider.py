from __future__ import annotations

import pytest

from pipelines.card import SampleSource, load_card
from pipelines.kinds.detection.boxes import of_text
from pipelines.kinds.detection.prepare import NOTHING, PreparedDetection
from pipelines.samples import rider
from pipelines.samples.folder import load_marker, load_painter, write_sample
from tests.published_set import PATHS
from tests.samples.scenes import is_mostly_inside, scenes

CARD = load_card(PATHS.task("rider").card)


@pytest.mark.parametrize("label", CARD.labels)
def test_somebody_is_as_the_label_says_and_boxes_lie_in_the_picture(label):
    for marks in scenes(rider.paint_marked, CARD, label, 96):
        assert all(is_mostly_inside(corners) for _, corners in marks)


def test_painted_folder_has_boxes_that_prepare_reads(tmp_path):
    source = SampleSource(kind="sample", images_per_class=20, side_px=96)
    paint, mark = load_painter("rider"), load_marker("rider")
    write_sample(tmp_path, paint, CARD, source, 3, CARD.labels, mark)
    records = PreparedDetection().records(tmp_path, CARD)
    assert {record.label for record in records} <= {*CARD.labels, NOTHING}
    shown = {box.label for record in records for box in of_text(record.truth)}
    assert shown == set(CARD.labels)


def test_names_of_other_peoples_categories_are_known():
    for name in ("e-scooter rider", "Person", "bike", "cyclist"):
        assert CARD.label_of(name) in CARD.labels


def test_card_says_that_no_real_picture_was_seen():
    assert "No real picture was seen" in CARD.known_biases[0]
    assert any("sanctioning" in line for line in CARD.not_for)

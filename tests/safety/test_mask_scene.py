from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.card import load_card
from pipelines.kinds.detection.boxes import of_text
from pipelines.kinds.detection.prepare import NOTHING, PreparedDetection
from pipelines.samples import mask_scene
from tests.published_set import PATHS
from tests.samples.scenes import is_mostly_inside, scenes

CARD = load_card(PATHS.task("mask_scene").card)
VOC = (
    "<annotation><filename>maksssksksss0.png</filename><size><width>40</width><height>30</height>"
    "</size>{}</annotation>"
)
FACE = (
    "<object><name>{}</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>14</xmax><ymax>17</ymax>"
    "</bndbox></object>"
)


def test_published_annotations_are_read(tmp_path):
    for number, name in enumerate(("with_mask", "without_mask", "mask_weared_incorrect", None)):
        stem = f"maksssksksss{number}"
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / f"images/{stem}.jpg")
        text = VOC.format(FACE.format(name) if name else "")
        (tmp_path / f"annotations/{stem}.xml").write_text(
            text.replace("sss0.png", f"sss{number}.jpg")
        )
    records = PreparedDetection().records(tmp_path, CARD)
    assert [record.label for record in records] == [*CARD.labels, NOTHING]
    assert tuple(of_text(records[0].truth)[0])[1:] == pytest.approx((4, 5, 14, 17), abs=1)


@pytest.mark.parametrize("label", CARD.labels)
def test_somebody_is_as_the_label_says_and_boxes_are_of_faces(label):
    for marks in scenes(mask_scene.paint_marked, CARD, label, 64):
        for _, corners in marks:
            assert is_mostly_inside(corners)
            assert 0.15 < corners[3] - corners[1] < 0.4


def test_same_person_is_painted_with_the_mask_alone_changed():
    masked, bare = (
        np.asarray(
            mask_scene.paint_marked(label, np.random.default_rng(1), np.random.default_rng(3), 128)[
                0
            ]
        ).astype(int)
        for label in ("with_mask", "without_mask")
    )
    is_changed = np.abs(masked - bare).max(axis=-1) > 40
    assert 0.002 < is_changed.mean() < 0.2


def test_card_says_who_is_in_it_and_that_two_men_stand_in_all_splits():
    assert "did not consent" in CARD.consent_and_privacy
    assert "two men" in CARD.known_biases[0]
    assert CARD.alarms == {"without_mask", "mask_worn_incorrectly"}

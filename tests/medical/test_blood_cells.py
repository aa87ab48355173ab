from __future__ import annotations

import numpy as np
import pytest

from pipelines.card import SampleSource, load_card
from pipelines.kinds.detection.boxes import of_text
from pipelines.kinds.detection.prepare import PreparedDetection
from pipelines.samples import blood_cells
from pipelines.samples.folder import load_marker, load_painter, write_sample
from tests.published_set import PATHS

CARD = load_card(PATHS.task("blood_cells").card)
SIDE = 96


def painted(label: str, shot: int):
    generators = (np.random.default_rng(each) for each in (shot // 4, shot))
    return blood_cells.paint_marked(label, *generators, SIDE)


@pytest.mark.parametrize("label", CARD.labels)
def test_a_field_shows_what_the_label_says_among_red_cells(label):
    for shot in range(20):
        _, marks = painted(label, shot)
        names = [name for name, _ in marks]
        assert {label, "rbc"} <= set(names) <= set(CARD.labels)
        assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for _, (x0, y0, x1, y1) in marks)


def test_white_cells_are_the_largest_and_platelets_the_smallest():
    sides: dict[str, list[float]] = {label: [] for label in CARD.labels}
    for shot in range(30):
        for name, (x0, y0, x1, y1) in painted("wbc", shot)[1]:
            if min(x0, y0) > 0 and max(x1, y1) < 1:
                sides[name].append(max(x1 - x0, y1 - y0))
    assert max(sides["platelet"]) < min(sides["rbc"])
    assert max(sides["rbc"]) < min(sides["wbc"])


def test_a_white_cells_box_holds_what_is_most_purple():
    for shot in range(12):
        image, marks = painted("wbc", shot)
        rgb = np.asarray(image).astype(float)
        rows, columns = np.unravel_index(np.argmax(rgb[..., 2] - rgb[..., 1]), (SIDE, SIDE))
        place = (np.array([columns, rows]) + 0.5) / SIDE
        boxes = np.array([corners for name, corners in marks if name in ("wbc", "platelet")])
        assert ((boxes[:, :2] <= place) & (place <= boxes[:, 2:])).all(axis=1).any()


def test_painted_folder_has_boxes_that_prepare_reads(tmp_path):
    source = SampleSource(kind="sample", images_per_class=20, side_px=96)
    paint, mark = load_painter("blood_cells"), load_marker("blood_cells")
    write_sample(tmp_path, paint, CARD, source, 3, CARD.labels, mark)
    records = PreparedDetection().records(tmp_path, CARD)
    assert {box.label for record in records for box in of_text(record.truth)} == set(CARD.labels)
    assert len({record.group for record in records}) > len(records) / 5


def test_published_categories_are_known():
    for name, label in {"RBC": "rbc", "WBC": "wbc", "Platelets": "platelet"}.items():
        assert CARD.label_of(name) == label


def test_card_says_that_it_counts_no_patients_blood():
    assert any("blood count" in line for line in CARD.not_for)
    assert "labelled incompletely" in CARD.known_biases[0]

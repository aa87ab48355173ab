from __future__ import annotations

import json

import numpy as np
import pytest

from pipelines.card import SampleSource, load_card
from pipelines.kinds.detection.boxes import of_text
from pipelines.kinds.detection.prepare import PreparedDetection
from pipelines.samples import hard_hat
from pipelines.samples.folder import load_marker, load_painter, write_sample
from tests.processes import ROOT
from tests.published_set import PATHS

CARD = load_card(PATHS.task("hard_hat").card)
SIDE = 160


def painted(label: str, subject: int, shot: int):
    generators = (np.random.default_rng(each) for each in (subject, shot))
    return hard_hat.paint_marked(label, *generators, SIDE)


def test_published_categories_are_known():
    for name in ("Helmet", "head", "no-helmet", "vest", "no_wear"):
        assert CARD.label_of(name) in CARD.labels


@pytest.mark.parametrize("label", CARD.labels)
def test_somebody_is_as_the_label_says_and_boxes_lie_in_the_picture(label):
    n_empty = 0
    for shot in range(40):
        image, marks = painted(label, shot // 4, shot)
        assert image.size == (SIDE, SIDE)
        names = [name for name, _ in marks]
        assert set(names) <= set(CARD.labels)
        n_empty += not names
        assert not names or label in names
        for _, (x0, y0, x1, y1) in marks:
            assert x1 - x0 > 0.03
            assert y1 - y0 > 0.03
            assert min(x1, y1) > 0
            assert max(x0, y0) < 1
    assert n_empty < 8


def test_painted_folder_has_boxes_that_prepare_reads(tmp_path):
    source = SampleSource(kind="sample", images_per_class=20, side_px=96)
    paint, mark = load_painter("hard_hat"), load_marker("hard_hat")
    write_sample(tmp_path, paint, CARD, source, 3, CARD.labels, mark)
    records = PreparedDetection().records(tmp_path, CARD)
    planted = json.loads((tmp_path / "planted.json").read_text())
    faults = {fault["fault"]: fault for fault in planted}
    assert "conflicting_duplicate" not in faults
    truth = {record.path: record.truth for record in records}
    copy = faults["exact_duplicate"]
    assert truth[copy["path"]] == truth[copy["of"]]
    near = faults["near_duplicate"]
    pairs = zip(of_text(truth[near["path"]]), of_text(truth[near["of"]]), strict=True)
    for small, large in pairs:
        assert small.label == large.label
        assert np.array(small[1:]) == pytest.approx(0.92 * np.array(large[1:]), abs=1.0)
    assert {record.group for record in records if record.path == copy["path"]} != {copy["path"]}


def test_card_says_that_nobody_consented_and_what_it_is_not_for():
    assert "did not consent" in CARD.consent_and_privacy
    assert any("sanctioning" in line for line in CARD.not_for)
    assert (ROOT / "apps/hard_hat.py").is_file()

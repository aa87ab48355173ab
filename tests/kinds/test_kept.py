"""What stays of an answer when its picture is changed, and what a second model gains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.data.manifest import Entry
from pipelines.kinds.detection.boxes import Marked, as_text
from pipelines.kinds.embedding.truth import written
from pipelines.kinds.evaluate import KINDS, Answers
from pipelines.metrics.intervals import draw
from pipelines.validation.behaviour import changes
from tests.serving.test_detection import bundle_of as of_boxes
from tests.serving.test_embedding import bundle_of as of_vectors
from tests.serving.test_segmentation import bundle_of as of_masks

SIDE = 64
MIRRORED = next(each for each in changes(with_flip=True) if each.family == "flip")
TURNED = next(each for each in changes(with_flip=True) if each.family == "rotation")


def answers(bundle, name, rows, entries, geometry=None) -> Answers:
    rows = np.float32(rows)
    places = np.stack([np.eye(3)] * len(rows)) if geometry is None else geometry
    return Answers(bundle, entries, {"int8": {name: rows}}, None, places, Path())


def entries_of(truths) -> list[Entry]:
    return [
        Entry(f"{n}.png", "", f"g{n}", "", "test", str(n), SIDE, SIDE, truth)
        for n, truth in enumerate(truths)
    ]


#: The middle of a picture is shown, a little to the left.
BOX = [0.2, 0.4, 0.5, 0.6]
MASK = np.zeros((1, 1, SIDE, SIDE))
MASK[..., 26:38, 13:32] = 1.0


def boxes(*corners):
    return [[[*each, 0.9, 0] for each in corners]]


@pytest.mark.parametrize("change", [MIRRORED, TURNED], ids=lambda change: change.name)
def test_places_are_led_back_before_they_are_compared(change):
    moves = change.moves((SIDE, SIDE))
    x0, y0, x1, y1 = np.array(BOX) * SIDE
    corners = (np.array([[x0, y0, 1], [x1, y1, 1]]) @ moves.T)[:, :2] / SIDE
    there = [*corners.min(axis=0), *corners.max(axis=0)]
    cases = [
        (of_boxes(["it"], {}, n=1), "boxes", boxes(BOX), boxes(there)),
        (of_masks("it"), "mask", MASK, MASK[..., ::-1] if change is MIRRORED else MASK),
    ]
    for bundle, name, before, after in cases:
        entries = entries_of(["[]"])
        kept = KINDS[bundle.kind].kept
        one = answers(bundle, name, before, entries)
        moved = answers(bundle, name, after, entries, moves[np.newaxis])
        unled = answers(bundle, name, after, entries)
        assert kept(one, one).tolist() == [1.0]
        assert kept(one, moved)[0] > 0.9 if change is MIRRORED else kept(one, moved)[0] > 0.75
        if change is MIRRORED:
            assert kept(one, unled)[0] < 0.7


def test_boxes_stay_by_pairs_and_none_stays_none():
    bundle, entries = of_boxes(["it"], {}, n=2), entries_of(["[]"] * 2)
    before = answers(
        bundle, "boxes", [boxes(BOX, [0.6, 0.6, 0.9, 0.9])[0], np.zeros((2, 6))], entries
    )
    after = answers(bundle, "boxes", [[[*BOX, 0.9, 0], [0] * 6], np.zeros((2, 6))], entries)
    # One pair of two boxes and one; where neither tells of any, nothing was lost.
    assert KINDS["detection"].kept(before, after) == pytest.approx([2 / 3, 1.0])


def test_neighbours_are_asked_of_the_pictures_as_they_were():
    bundle, rng = of_vectors(0.75), np.random.default_rng(1)
    many = entries_of([written(f"{n // 2}", f"{n}") for n in range(40)])
    rows = rng.normal(size=(40, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    # Turned together, pictures stay neighbours of one another, and not of those that were.
    one, turned = (answers(bundle, "vector", of, many) for of in (rows, -rows))
    assert KINDS["embedding"].kept(one, one).tolist() == [1.0] * 40
    assert KINDS["embedding"].kept(one, turned).mean() < 0.2


def test_a_second_model_gains_what_the_first_has_missed():
    truth = as_text([Marked("it", *(side * SIDE for side in BOX))])
    bundle, entries = of_boxes(["it"], {}, n=1), entries_of([truth] * 8)
    right, wrong = boxes(BOX)[0], boxes([0.7, 0.7, 0.9, 0.9])[0]
    one = answers(bundle, "boxes", [right] * 4 + [wrong] * 4, entries)
    other = answers(bundle, "boxes", [right] * 8, entries)
    draws = draw([entry.group for entry in entries], 200, 1)
    gains = KINDS["detection"].gains(one, other, draws)
    of = gains["ap50"]
    assert (of.other, of.gain.value) == (1.0, pytest.approx(1 - of.one, abs=1e-6))
    assert of.gain.low > 0
    back = KINDS["detection"].gains(other, one, draws)["ap50"].gain
    assert (back.low, back.high) == (-of.gain.high, -of.gain.low)

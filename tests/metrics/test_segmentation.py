from __future__ import annotations

import numpy as np
import pytest

from pipelines.metrics.segmentation import (
    STEPS,
    best_threshold,
    boundary_f1,
    by_picture,
    centred_ellipse,
    dice,
    iou,
    mean_dice,
    mean_iou,
    outline,
)

EMPTY = np.zeros((40, 60), dtype=bool)


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = EMPTY.copy()
    mask[top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (box(0, 0, 10, 10), box(0, 0, 10, 10), (1.0, 1.0, 1.0)),
        # Half of each: 2 * 50 / 200, and 50 / 150.
        (box(5, 5, 15, 15), box(5, 10, 15, 20), (0.5, 1 / 3, None)),
        (box(5, 5, 15, 15), box(20, 40, 30, 50), (0.0, 0.0, 0.0)),
        (EMPTY, EMPTY, (1.0, 1.0, 1.0)),
        (box(5, 5, 15, 15), EMPTY, (0.0, 0.0, 0.0)),
        (~EMPTY, ~EMPTY, (1.0, 1.0, 1.0)),
    ],
)
def test_overlap_by_hand(one, other, expected):
    for a, b in ((one, other), (other, one)):
        assert float(dice(a, b)) == pytest.approx(expected[0])
        assert float(iou(a, b)) == pytest.approx(expected[1])
        if expected[2] is not None:
            assert boundary_f1(a, b) == pytest.approx(expected[2])


def test_dice_and_iou_are_the_same_thing_said_twice():
    draw = np.random.default_rng(0)
    one, other = draw.random((2, 30, 8, 8)) < 0.4
    overlap = iou(one, other, (1, 2))
    assert dice(one, other, (1, 2)) == pytest.approx(2 * overlap / (1 + overlap))


def test_a_label_counts_where_somebody_shows_it():
    values = np.array([[0.5, 1.0, 0.0], [0.5, 1.0, 1.0], [1.0, 1.0, 1.0]])
    is_shown = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    assert by_picture(values, is_shown).tolist() == [0.25, 0.5, 1.0]
    truth = np.stack([np.stack([box(0, 0, 10, 10), EMPTY]), np.stack([EMPTY, EMPTY])])
    # To say nothing is right of the second picture alone, however many labels there are.
    assert mean_dice(np.zeros_like(truth), truth) == 0.5
    assert mean_iou(truth, truth) == 1.0


def test_outline_is_one_pixel_wide_and_none_at_the_edge_of_the_picture():
    edge = outline(box(10, 10, 20, 30))
    assert edge.sum() == 2 * 10 + 2 * 20 - 4
    assert outline(box(0, 0, 20, 30)).sum() == 20 + 30 - 1
    assert not outline(~EMPTY).any()


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (4, 0.6)])
def test_outlines_may_lie_a_little_apart(shift, expected):
    one, other = box(10, 10, 20, 20), box(10, 10 + shift, 20, 20 + shift)
    # Of 72 px, 0.02 is 1.4: a px, and no diagonal one and a half.
    reached = boundary_f1(one, other, tolerance=0.02)
    assert reached == pytest.approx(expected) if shift < 4 else 0.2 < reached < expected


def test_threshold_is_the_one_with_the_best_dice():
    true = np.stack([box(10, 10, 20, 20)] * 3)
    said = np.where(true, 0.33, 0.22)
    assert best_threshold(said, true, STEPS) == pytest.approx(0.3)
    # Of equals that nearest to a half.
    assert best_threshold(true.astype(float), true, STEPS) == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7])
def test_ellipse_has_its_area_and_the_pictures_aspect(share):
    found = centred_ellipse(share, (200, 300))
    assert found.mean() == pytest.approx(share, abs=0.003)
    assert (found == found[::-1, ::-1]).all()
    if share:
        assert found.any(axis=0).sum() / 300 == pytest.approx(
            found.any(axis=1).sum() / 200, abs=0.02
        )

"""Average precision by its definition, spelt out, and by cocoapi where that is installed."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from pipelines.metrics.detection import (
    OVERLAPS,
    SIZES,
    agreement,
    average_precision,
    best_point,
    best_scores,
    count_band,
    counts,
    matches,
    mean_over_labels,
    overlaps,
    presence,
    reached,
    true_counts,
)
from pipelines.metrics.intervals import draw, interval_of

N_LABELS = 3


def painted(n: int, seed: int, longest: float = 60) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and boxes that hit some of it, are off by a little, or are elsewhere."""
    rng = np.random.default_rng(seed)
    truth, found = np.full((n, 8, 5), np.nan), np.zeros((n, 20, 6))
    for image in range(n):
        for row in range(rng.integers(0, 8)):
            x, y, width, height = rng.uniform((0, 0, 8, 8), (200, 200, longest, longest))
            truth[image, row] = (x, y, x + width, y + height, rng.integers(N_LABELS))
        true = truth[image][np.isfinite(truth[image, :, 4])]
        for row in range(rng.integers(0, 20)):
            if len(true) and rng.random() < 0.6:
                one = true[rng.integers(len(true))]
                corners = one[:4] + rng.normal(0, 3, 4)
                corners[2:] = np.maximum(corners[2:], corners[:2] + 1)
                label = one[4] if rng.random() < 0.8 else rng.integers(N_LABELS)
            else:
                x, y, width, height = rng.uniform((0, 0, 8, 8), (200, 200, longest, longest))
                corners, label = np.array([x, y, x + width, y + height]), rng.integers(N_LABELS)
            found[image, row] = (*corners, round(rng.uniform(0.05, 1), 2), label)
    return found, truth


def by_definition(found: np.ndarray, truth: np.ndarray, label: int, at: float) -> float:
    """AP of one label and overlap, slowly."""
    rows = [
        (score, image, corners)
        for image, boxes in enumerate(found)
        for *corners, score, of in boxes
        if score > 0 and of == label
    ]
    rows.sort(key=lambda row: -row[0])
    free = {
        image: [one[:4] for one in boxes if one[4] == label] for image, boxes in enumerate(truth)
    }
    n_true = sum(map(len, free.values()))
    hits = []
    for _, image, corners in rows:
        shared = [float(overlaps(np.array([corners]), one[None])[0, 0]) for one in free[image]]
        is_hit = bool(shared) and max(shared) >= at
        if is_hit:
            free[image].pop(int(np.argmax(shared)))
        hits.append(is_hit)
    right = np.cumsum(hits)
    precision = right / np.arange(1, len(hits) + 1)
    recall = right / n_true
    return float(
        np.mean(
            [
                max((p for p, r in zip(precision, recall, strict=True) if r >= level), default=0.0)
                for level in np.linspace(0, 1, 101)
            ]
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_its_definition(seed):
    found, truth = painted(15, seed)
    for label, of in enumerate(matches(found, truth, N_LABELS)):
        areas = average_precision(of)[:, 0]
        for at, area in zip(OVERLAPS[::3], areas[::3], strict=True):
            assert area == pytest.approx(by_definition(found, truth, label, at), abs=1e-9)


@pytest.mark.parametrize("library", ["pycocotools", "faster_coco_eval"])
@pytest.mark.parametrize("seed", range(3))
def test_average_precision_is_cocos(library, seed):
    """Not among the project's dependencies: run where one of them is installed."""
    coco = pytest.importorskip(f"{library}.coco" if library == "pycocotools" else library)
    evaluation = pytest.importorskip(f"{library}.cocoeval") if library == "pycocotools" else coco
    evaluate = getattr(evaluation, "COCOeval", None) or evaluation.COCOeval_faster
    found, truth = painted(30, seed, longest=160)
    annotations = [
        (image, *one)
        for image, boxes in enumerate(truth)
        for one in boxes[np.isfinite(boxes[:, 4])].tolist()
    ]
    document = {
        "info": {},
        "images": [{"id": image, "width": 300, "height": 300} for image in range(len(truth))],
        "categories": [{"id": label, "name": str(label)} for label in range(N_LABELS)],
        "annotations": [
            {
                **{"id": number, "image_id": image, "category_id": int(label), "iscrowd": 0},
                **{"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)},
            }
            for number, (image, x0, y0, x1, y1, label) in enumerate(annotations, start=1)
        ],
    }
    told = [
        {
            **{"image_id": image, "category_id": int(label), "score": score},
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        for image, boxes in enumerate(found)
        for x0, y0, x1, y1, score, label in boxes[boxes[:, 4] > 0].tolist()
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO()
        true.dataset = document
        true.createIndex()
        run = evaluate(true, true.loadRes(told), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    own = mean_over_labels([average_precision(of) for of in matches(found, truth, N_LABELS)])
    assert own.mean() == pytest.approx(run.stats[0], abs=1e-9)
    assert own[0, 0] == pytest.approx(run.stats[1], abs=1e-9)
    for stat, areas in zip(run.stats[3:6], SIZES.values(), strict=True):
        sized = [average_precision(of) for of in matches(found, truth, N_LABELS, areas=areas)]
        assert mean_over_labels(sized).mean() == pytest.approx(stat, abs=1e-9)


def test_a_resample_is_the_images_as_often_as_they_are_drawn():
    found, truth = painted(12, 7)
    groups = [f"g{image // 2}" for image in range(12)]
    draws = draw(groups, 5, 3)
    for label, of in enumerate(matches(found, truth, N_LABELS)):
        areas = average_precision(of, draws)
        for number, times in enumerate(draws.times, start=1):
            rows = np.repeat(np.arange(12), times[draws.place])
            again = matches(found[rows], truth[rows], N_LABELS)[label]
            # Copies of an image may stand in another order among boxes of one score.
            assert areas[0, number] == pytest.approx(average_precision(again)[0, 0], abs=0.03)
    values = average_precision(matches(found, truth, 1)[0], draw(groups, 400, 3))[0]
    interval = interval_of(draws, values)
    assert interval.low < interval.value < interval.high


def test_without_true_boxes_nothing_is_defined_and_without_found_ones_it_is_zero():
    found, truth = painted(6, 1)
    nothing = np.full_like(truth, np.nan)
    of = matches(found, nothing, 1)[0]
    assert np.isnan(average_precision(of)).all()
    assert best_point(of) is None
    assert average_precision(matches(np.zeros_like(found), truth, 1)[0]).tolist() == [[0.0]] * 10
    assert np.isnan(mean_over_labels([np.array([np.nan]), np.array([np.nan])]))
    assert mean_over_labels([np.array([np.nan]), np.array([0.4])]) == 0.4


def test_each_true_box_is_matched_once_and_the_most_certain_comes_first():
    truth = np.array([[[0, 0, 10, 10, 0], [np.nan] * 5]])
    found = np.array([[[0, 0, 10, 9, 0.6, 0], [0, 0, 10, 10, 0.5, 0], [0, 0, 10, 10, 0.9, 1]]])
    of = matches(found, truth, 1)[0]
    assert of.score.tolist() == [0.6, 0.5]
    assert of.is_hit[0].tolist() == [True, False]
    assert of.is_hit[9].tolist() == [False, True]
    assert reached(of, 0.55).precision == 1.0
    assert best_point(of).threshold == 0.6
    assert reached(of, 0.5).precision == 0.5


def test_of_one_size_the_others_are_neither_right_nor_wrong():
    """By hand: a small and a large true box, each found; and nothing, found small and large."""
    truth = np.array([[[0, 0, 10, 10, 0], [100, 100, 300, 300, 0]]], dtype=float)
    found = np.array(
        [
            [
                [100, 100, 300, 300, 0.9, 0],
                [400, 400, 600, 600, 0.8, 0],
                [50, 50, 55, 55, 0.7, 0],
                [0, 0, 10, 10, 0.6, 0],
            ]
        ]
    )
    expected = {"small": 0.5, "medium": None, "large": 1.0}
    for size, areas in SIZES.items():
        of = matches(found, truth, 1, OVERLAPS[:1], areas)[0]
        value = average_precision(of)[0, 0]
        assert np.isnan(value) if expected[size] is None else value == pytest.approx(expected[size])
        assert of.n_true.sum() == (expected[size] is not None)


def test_counts_and_presence():
    truth = np.full((4, 3, 5), np.nan)
    truth[0, :2] = [[0, 0, 9, 9, 0], [20, 0, 29, 9, 0]]
    truth[1, 0] = [0, 0, 9, 9, 1]
    found = np.zeros((4, 3, 6))
    found[0, 0] = [0, 0, 9, 9, 0.8, 0]
    found[1, 0] = [0, 0, 9, 9, 0.3, 0]
    found[1, 1] = [0, 0, 9, 9, 0.7, 1]
    assert counts(found, [0.5, 0.5], 2).tolist() == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert true_counts(truth, 2).tolist() == [[2, 0], [0, 1], [0, 0], [0, 0]]
    there = true_counts(truth, 2) > 0
    scores = best_scores(found, 2)
    assert scores.tolist() == [[0.8, 0.0], [0.3, 0.7], [0, 0], [0, 0]]
    draws = draw(list("abcd"), 10, 1)
    assert presence(draws, there, scores)[0] == 1.0
    assert presence(draws, there, 1 - scores)[0] == 0.0
    assert np.isnan(presence(draws, np.ones((4, 2), bool), scores)[0])


def test_a_band_of_counts_leaves_out_as_many_as_it_may_and_holds_of_others():
    assert count_band(np.arange(38)) is None
    assert count_band(np.arange(39)) == (0, 38)
    assert count_band(np.arange(79)[::-1]) == (1, 77)
    rng = np.random.default_rng(3)
    held = []
    for _ in range(300):
        low, high = count_band(rng.poisson(3, 60) - rng.poisson(2, 60))
        others = rng.poisson(3, 100) - rng.poisson(2, 100)
        held.append(((others >= low) & (others <= high)).mean())
    assert 0.95 <= np.mean(held) < 0.995


def test_agreement_is_the_share_of_boxes_with_a_partner():
    one, other = np.zeros((3, 2, 6)), np.zeros((3, 2, 6))
    one[0] = [[0, 0, 10, 10, 0.9, 0], [20, 20, 40, 40, 0.8, 1]]
    other[0] = [[0, 0, 10, 9, 0.7, 0], [20, 20, 40, 40, 0.8, 0]]
    one[1, 0] = [0, 0, 10, 10, 0.2, 0]
    shares = agreement(one, other, [0.5, 0.5])
    assert shares[0] == 0.5
    assert np.isnan(shares[1:]).all()
    assert agreement(one, one, [0.1, 0.1])[:2].tolist() == [1.0, 1.0]

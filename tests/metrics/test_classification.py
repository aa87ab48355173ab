from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipelines.errors import DataError
from pipelines.metrics.classification import (
    accuracy,
    agreement,
    classification_metrics,
    confusion_counts,
    expected_calibration_error,
    macro_f1,
    max_recall_drop,
    reliability_bins,
    rounded,
    sqnr_db,
)

LABELS = ("ash", "birch", "cedar", "fir")


def draw(n: int, c: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True classes, and probabilities in float32 that lean towards them."""
    rng = np.random.default_rng(seed)
    class_index = rng.integers(0, c, n)
    logits = rng.normal(size=(n, c))
    logits[np.arange(n), class_index] += 1.2
    exponentials = np.exp(logits)
    return class_index, (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


@st.composite
def answers(draw_from: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Few images of up to six classes: absent and never answered classes are common."""
    c = draw_from(st.integers(2, 6))
    n = draw_from(st.integers(1, 12))
    classes = st.lists(st.integers(0, c - 1), min_size=n, max_size=n)
    return np.array(draw_from(classes)), np.array(draw_from(classes)), c


@given(answers())
def test_quick_metrics_equal_scikit_learn(case):
    class_index, predicted, c = case
    expected = sk.f1_score(class_index, predicted, average="macro", zero_division=0)
    assert macro_f1(class_index, predicted, c) == pytest.approx(expected, abs=1e-12)
    assert accuracy(class_index, predicted) == sk.accuracy_score(class_index, predicted)
    expected_counts = sk.confusion_matrix(class_index, predicted, labels=range(c))
    assert (confusion_counts(class_index, predicted, c) == expected_counts).all()


@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_equal_scikit_learn(seed):
    class_index, probabilities = draw(200, seed=seed)
    predicted = probabilities.argmax(axis=1)
    wide = probabilities / probabilities.astype(np.float64).sum(axis=1, keepdims=True)
    found = classification_metrics(class_index, probabilities, LABELS, 10)
    expected = {
        "accuracy": sk.accuracy_score(class_index, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(class_index, predicted),
        "macro_f1": sk.f1_score(class_index, predicted, average="macro"),
        "nll": sk.log_loss(class_index, wide),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-9)
    area = sk.roc_auc_score(class_index, wide, multi_class="ovr", average="macro")
    assert found["roc_auc_ovr"]["macro"] == pytest.approx(area, abs=1e-6)
    precision, recall, _, support = sk.precision_recall_fscore_support(class_index, predicted)
    for index, label in enumerate(LABELS):
        of_class = found["per_class"][label]
        others = class_index != index
        specificity = sk.recall_score(others, predicted != index)
        assert of_class == pytest.approx(
            {
                "precision": precision[index],
                "recall": recall[index],
                "specificity": specificity,
                "support": support[index],
            }
        )


def test_absent_class_gives_none_and_no_warning():
    # Every image is ash; fir is answered once, birch and cedar never.
    probabilities = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]], np.float32)
    found = classification_metrics(np.array([0, 0]), probabilities, LABELS, 10)
    assert found["per_class"]["ash"] == {
        "precision": 1.0,
        "recall": 0.5,
        "specificity": None,
        "support": 2,
    }
    assert found["per_class"]["birch"] == {
        "precision": None,
        "recall": None,
        "specificity": 1.0,
        "support": 0,
    }
    assert found["per_class"]["fir"]["precision"] == 0.0
    assert found["per_class"]["fir"]["specificity"] == 0.5
    assert found["roc_auc_ovr"] == {"macro": None, "per_class": dict.fromkeys(LABELS)}
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_one_absent_class_leaves_no_macro_area():
    class_index, probabilities = draw(60)
    kept = class_index != 3
    found = classification_metrics(class_index[kept], probabilities[kept], LABELS, 10)
    assert found["roc_auc_ovr"]["macro"] is None
    assert found["roc_auc_ovr"]["per_class"]["fir"] is None
    assert 0.5 < found["roc_auc_ovr"]["per_class"]["ash"] <= 1


def test_two_classes_have_the_same_area_as_the_binary_curve():
    class_index, probabilities = draw(80, c=2)
    found = classification_metrics(class_index, probabilities, ("no", "yes"), 10)
    area = sk.roc_auc_score(class_index, probabilities[:, 1])
    assert found["roc_auc_ovr"]["macro"] == pytest.approx(area)


@pytest.mark.parametrize(
    ("said", "is_right", "bins", "ece"),
    [
        # Right as often as it says.
        ([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0], 10, 0.0),
        # Sure and always wrong.
        ([1.0, 1.0], [0, 0], 10, 1.0),
        # One bin hides that one answer is too sure and the other too shy.
        ([0.6, 0.9], [1, 0], 1, 0.25),
        ([0.6, 0.9], [1, 0], 10, 0.65),
        # A bin holds its upper edge: both stand in (0.5, 0.6].
        ([0.6, 0.55], [1, 0], 10, 0.075),
    ],
)
def test_expected_calibration_error_by_hand(said, is_right, bins, ece):
    probabilities = np.array([[p, 1 - p] for p in said])
    class_index = np.where(is_right, 0, 1)
    found = reliability_bins(class_index, probabilities, bins)
    assert expected_calibration_error(found) == pytest.approx(ece)
    assert sum(entry.n for entry in found) == len(said)


@settings(max_examples=50)
@given(st.integers(1, 40), st.integers(2, 20), st.integers(0, 1000))
def test_every_answer_stands_in_one_bin(n, bins, seed):
    class_index, probabilities = draw(n, seed=seed)
    found = reliability_bins(class_index, probabilities, bins)
    assert sum(entry.n for entry in found) == n
    assert len(found) <= bins
    assert [entry.probability for entry in found] == sorted(e.probability for e in found)


@pytest.mark.parametrize(
    ("class_index", "probabilities", "says"),
    [
        (np.zeros(0, int), np.zeros((0, 4)), "at least one answer"),
        (np.zeros(2, int), np.full((2, 3), 1 / 3), "shape (n, 4)"),
        (np.zeros(2, int), np.array([[1, 0, 0, 0], [np.nan] * 4]), "1 of 2 images"),
    ],
)
def test_unusable_answers_are_refused(class_index, probabilities, says):
    with pytest.raises(DataError) as caught:
        classification_metrics(class_index, probabilities, LABELS, 10)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_agreement_and_sqnr():
    reference = np.array([[3.0, 1.0], [0.0, 2.0]], np.float32)
    other = np.array([[3.0, 1.0], [2.0, 0.0]], np.float32)
    assert agreement(reference, other) == 0.5
    # Power 14 of the signal, 8 of the error.
    assert sqnr_db(reference, other) == pytest.approx(10 * math.log10(14 / 8))
    assert sqnr_db(reference, reference) == math.inf
    assert sqnr_db(np.zeros(2), np.ones(2)) == -math.inf


def test_max_recall_drop_is_of_the_worst_class_and_skips_absent_ones():
    before = {"per_class": {"a": {"recall": 0.9}, "b": {"recall": 0.8}, "c": {"recall": None}}}
    after = {"per_class": {"a": {"recall": 0.95}, "b": {"recall": 0.5}, "c": {"recall": None}}}
    assert max_recall_drop(before, after) == pytest.approx(0.3)
    assert max_recall_drop(after, before) == pytest.approx(0.05)


def test_rounded_is_plain_json():
    document = {"a": [0.12345678, -1e-9, math.nan, math.inf], "b": {"c": 3, "d": None}}
    found = rounded(document)
    assert found == {"a": [0.123457, 0.0, None, None], "b": {"c": 3, "d": None}}
    assert math.copysign(1, found["a"][1]) == 1

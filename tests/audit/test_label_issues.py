from __future__ import annotations

import numpy as np

from pipelines.audit.label_issues import label_issues, spread


def test_flipped_labels_are_found_and_no_others():
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1, 2], 30)
    probabilities = np.full((90, 3), 0.1)
    probabilities[np.arange(90), truth] = 0.8 + rng.uniform(-0.05, 0.05, 90)
    labels = truth.copy()
    labels[[3, 40]] = [2, 0]
    found = label_issues(labels, probabilities)
    assert {(issue.index, issue.suggested) for issue in found} == {(3, 0), (40, 1)}
    assert all(0.7 < issue.probability < 0.9 for issue in found)


def test_threshold_is_the_class_mean_so_that_a_class_the_model_is_unsure_of_is_not_all_doubted():
    # Of class 1 the model says 0.4 at best; of class 0 always 0.9.
    probabilities = np.array([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5)
    labels = np.array([0] * 5 + [1] * 5)
    assert label_issues(labels, probabilities) == []


def test_surest_first_and_an_image_that_is_confident_of_nothing_is_left_out():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.1, 0.9], [0.95, 0.05]])
    labels = np.array([0, 0, 1, 0, 1])
    found = label_issues(labels, probabilities)
    assert [issue.index for issue in found] == [4, 3]
    assert label_issues(np.array([0, 1]), np.array([[0.5, 0.5], [0.5, 0.5]])) == []


def test_spread_takes_classes_in_turn():
    order = [5, 4, 3, 2, 1, 0]
    classes = np.array([1, 0, 0, 0, 0, 0])
    assert spread(order, classes, 3) == [5, 0, 4]
    assert spread([], classes, 3) == []

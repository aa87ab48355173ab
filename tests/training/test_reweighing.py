"""How often each image is drawn, so that what should not tell the label does not."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from pipelines.errors import ConfigError
from pipelines.training.batches import class_draw_weights, source_draw_weights

#: Images of each class (columns) in each source (rows).
COUNTS = st.integers(2, 4).flatmap(
    lambda n_classes: st.lists(
        st.lists(st.integers(1, 12), min_size=n_classes, max_size=n_classes),
        min_size=1,
        max_size=4,
    )
)


def spread(counts: list[list[int]], seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rows = [
        (label, f"source {number}")
        for number, row in enumerate(counts)
        for label, count in enumerate(row)
        for _ in range(count)
    ]
    order = np.random.default_rng(seed).permutation(len(rows))
    return np.array([rows[i][0] for i in order]), [rows[i][1] for i in order]


@settings(deadline=None)
@given(COUNTS, st.integers(0, 99))
def test_label_and_source_are_independent_once_weighted(counts, seed):
    class_index, sources = spread(counts, seed)
    weights = source_draw_weights(class_index, sources, "tiny")
    names, place = np.unique(sources, return_inverse=True)
    joint = np.zeros((len(names), len(counts[0])))
    np.add.at(joint, (place, class_index), weights / len(weights))
    assert joint.sum() == pytest.approx(1)
    np.testing.assert_allclose(joint, np.outer(joint.sum(axis=1), joint.sum(axis=0)), atol=1e-12)
    # Each class counts the same, each source what it counted before.
    np.testing.assert_allclose(joint.sum(axis=0), 1 / len(counts[0]))
    np.testing.assert_allclose(joint.sum(axis=1), np.sum(counts, axis=1) / np.sum(counts))


@settings(deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_one_source_is_weighted_by_class_alone(counts):
    class_index, sources = spread([counts])
    np.testing.assert_allclose(
        source_draw_weights(class_index, sources, "tiny"), class_draw_weights(class_index)
    )


def test_by_hand():
    class_index = np.array([0, 0, 0, 1, 1])
    sources = ["a", "a", "a", "a", "b"]
    sources[2] = "b"
    # a: two of class 0, one of class 1; b: one of each.
    weights = source_draw_weights(class_index, sources, "tiny")
    np.testing.assert_allclose(weights, [0.75, 0.75, 1.0, 1.5, 1.0])


def test_names_may_be_any_text_and_classes_may_be_absent():
    class_index = np.array([0, 3, 0, 3])
    weights = source_draw_weights(class_index, ["Zürich", "Zürich", "b c", "b c"], "tiny")
    np.testing.assert_allclose(weights, 1.0)


def test_source_that_lacks_a_class_is_named_and_the_rest_is_weighted(caplog):
    class_index = np.array([0, 0, 0, 1, 0, 0])
    sources = ["a", "a", "a", "a", "b", "b"]
    with caplog.at_level(logging.WARNING):
        weights = source_draw_weights(class_index, sources, "tiny")
    np.testing.assert_allclose(weights, [2 / 3, 2 / 3, 2 / 3, 2, 1, 1])
    assert weights.mean() == pytest.approx(1)
    assert "1 of 2 sources lack a class (b)" in caplog.text


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        (["", "", "", ""], "4 of 4 train images have none"),
        (["a", "", "a", "b"], "1 of 4 train images have none"),
        (["a", "b", "a", "b"], "each of the 2 sources has images of one class only"),
    ],
)
def test_sources_that_cannot_help_are_refused(sources, message):
    with pytest.raises(ConfigError, match=message) as caught:
        source_draw_weights(np.array([0, 1, 0, 1]), sources, "tiny")
    assert "\n" not in str(caught.value)
    assert "train.balance" in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(any))
def test_class_weights_are_scikit_learns(counts):
    truth = np.repeat(np.arange(len(counts)), counts)
    expected = compute_sample_weight("balanced", truth)
    np.testing.assert_allclose(class_draw_weights(truth), expected, rtol=1e-9)

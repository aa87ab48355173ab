from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch import nn

from pipelines.errors import ConfigError
from pipelines.training.batches import (
    chunks,
    class_draw_weights,
    epoch_order,
    source_draw_weights,
    train_from,
    trained_modules,
)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(2, 40))
def test_chunks_are_all_rows_in_order_and_no_batch_of_one(n, size):
    rows = np.arange(n)[::-1]
    batches = chunks(rows, size)
    assert np.array_equal(np.concatenate(batches), rows)
    assert all(len(batch) == size for batch in batches[:-1])
    if n > 1:
        assert all(2 <= len(batch) <= size + 1 for batch in batches)


def test_order_is_a_permutation_where_nothing_is_weighted():
    order = epoch_order(20, np.random.default_rng(1), None)
    assert sorted(order) == list(range(20))
    assert list(order) != list(range(20))
    assert np.array_equal(order, epoch_order(20, np.random.default_rng(1), None))


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(0, 2**20))
def test_images_of_one_number_stand_together_four_at_a_time(numbers, seed):
    mates = np.array(numbers)
    order = epoch_order(len(mates), np.random.default_rng(seed), None, mates)
    assert sorted(order) == list(range(len(mates)))
    # Parcels of at most four: of n images of a number at most ceil(n / 4), less where they touch.
    runs = 1 + np.count_nonzero(np.diff(mates[order]))
    assert runs <= sum(-(-n // 4) for n in np.bincount(mates))


@settings(deadline=None)
@given(st.lists(st.floats(0.05, 5), min_size=2, max_size=6), st.integers(0, 2**20))
def test_rows_are_drawn_in_proportion_to_their_weights(weights, seed):
    wanted = np.array(weights) / np.mean(weights)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([epoch_order(len(wanted), generator, wanted) for _ in range(2000)])
    shares = np.bincount(drawn, minlength=len(wanted)) / len(drawn)
    # Six standard deviations of a share, so that chance fails once in a billion.
    bound = 6 * np.sqrt(0.25 / len(drawn))
    assert np.abs(shares - wanted / len(wanted)).max() <= bound


@pytest.mark.parametrize("train_norms", [True, False])
def test_blocks_before_are_frozen_and_norms_are_trained_only_when_asked_to(train_norms, net):
    train_from(net, 2, train_norms=train_norms)
    is_trained = [all(p.requires_grad for p in block.parameters()) for block in net.blocks]
    assert is_trained == [False, False, True, True, True]
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {norm.training for norm in norms} == {train_norms}
    assert net.head.training
    train_from(net, 0, train_norms=train_norms)
    assert all(p.requires_grad for p in net.parameters())


def test_rates_decay_from_the_head_down(net):
    modules = trained_modules(net, 2, 0.5)
    assert modules[0] == (net.head, 1.0)
    assert [share for _, share in modules[1:]] == [0.125, 0.25, 0.5]
    assert [module for module, _ in modules[1:]] == list(net.blocks[2:])


def test_two_splits_together_are_the_images_of_both_augmented_as_the_first(splits):
    train, val = splits
    val = replace(val, pictures=replace(val.pictures, augment=None))
    both = train + val
    assert list(both.pictures.entries) == [*train.pictures.entries, *val.pictures.entries]
    assert both.truth.tolist() == [*train.truth, *val.truth]
    last = both.pictures.entries[-1]
    assert len(both.pictures.views(last, [1, 2], plain=False)) == 2
    assert np.array_equal(both.pictures.plain(last), val.pictures.plain(last))
    # Neither is changed.
    assert len(train.truth) == len(train.pictures.entries) == 12


# -- how often an image is drawn ------------------------------------------------------------------
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

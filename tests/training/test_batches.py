from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipelines.training.batches import (
    chunks,
    device_of,
    epoch_order,
    freeze_before,
    set_modes,
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
@given(st.lists(st.floats(0.05, 5), min_size=2, max_size=6), st.integers(0, 2**20))
def test_rows_are_drawn_in_proportion_to_their_weights(weights, seed):
    wanted = np.array(weights) / np.mean(weights)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([epoch_order(len(wanted), generator, wanted) for _ in range(2000)])
    shares = np.bincount(drawn, minlength=len(wanted)) / len(drawn)
    # Six standard deviations of a share, so that chance fails once in a billion.
    bound = 6 * np.sqrt(0.25 / len(drawn))
    assert np.abs(shares - wanted / len(wanted)).max() <= bound


def test_freezing_reaches_the_blocks_before(net):
    freeze_before(net, 2)
    assert [all(p.requires_grad for p in block.parameters()) for block in net.blocks] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert all(p.requires_grad for p in net.head.parameters())
    freeze_before(net, 0)
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("train_norms", [True, False])
def test_norms_follow_the_mode_only_when_asked_to(train_norms, net):
    net.eval()
    set_modes(net, train_norms=train_norms)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert {norm.training for norm in norms} == {train_norms}
    assert net.head.training


def test_rates_decay_from_the_head_down(net):
    modules = trained_modules(net, 2, 0.5)
    assert modules[0] == (net.head, 1.0)
    assert [share for _, share in modules[1:]] == [0.125, 0.25, 0.5]
    assert [module for module, _ in modules[1:]] == list(net.blocks[2:])


def test_device_is_that_of_the_parameters(net):
    assert device_of(net).type == "cpu"


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

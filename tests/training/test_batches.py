from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
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


@given(st.integers(1, 200), st.integers(2, 40))
def test_chunks_are_all_rows_in_order_and_no_batch_of_one(n, size):
    rows = np.arange(n)[::-1]
    batches = chunks(rows, size)
    assert np.array_equal(np.concatenate(batches), rows)
    assert all(len(batch) == size for batch in batches[:-1])
    if n > 1:
        assert all(2 <= len(batch) <= size + 1 for batch in batches)


@pytest.mark.parametrize("balance", ["none", "class_weights"])
def test_order_is_a_permutation_unless_classes_are_sampled(balance):
    truth = np.repeat([0, 1], [15, 5])
    order = epoch_order(truth, np.random.default_rng(1), balance)
    assert sorted(order) == list(range(20))
    assert list(order) != list(range(20))
    assert np.array_equal(order, epoch_order(truth, np.random.default_rng(1), balance))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=4), st.integers(0, 2**20))
def test_sampling_draws_each_class_as_often(counts, seed):
    truth = np.repeat(np.arange(len(counts)), counts)
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([epoch_order(truth, generator, "sampling") for _ in range(400)])
    shares = np.bincount(truth[drawn], minlength=len(counts)) / len(drawn)
    # Six standard deviations of a share, so that chance fails once in a billion.
    bound = 6 * np.sqrt(0.25 / len(drawn))
    assert np.abs(shares - 1 / len(counts)).max() <= bound


def test_sampling_leaves_a_class_that_does_not_occur():
    truth = np.array([0, 0, 2, 2, 2])
    order = epoch_order(truth, np.random.default_rng(1), "sampling")
    assert len(order) == 5


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

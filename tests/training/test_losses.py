from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from pipelines.kinds.classification.train import class_weights
from pipelines.training.fit import mixed, update_average


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=6))
def test_class_weights_are_scikit_learns(counts):
    truth = np.repeat(np.arange(len(counts)), counts)
    got = class_weights(truth, len(counts)).numpy()
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=truth)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    assert got[truth].mean() == pytest.approx(1.0, rel=1e-5)


@settings(deadline=None)
@given(st.integers(2, 9), st.floats(0.05, 5), st.integers(0, 2**20))
def test_mixed_is_a_blend_of_two_examples(n, alpha, seed):
    inputs = torch.arange(n * 4, dtype=torch.float32).reshape(n, 2, 2)
    targets = torch.eye(n)
    blended, soft = mixed(inputs, targets, alpha, np.random.default_rng(seed))
    assert blended.shape == inputs.shape
    assert soft.shape == targets.shape
    # Rows stay probabilities, and inputs are blended with the very shares of the targets.
    assert torch.allclose(soft.sum(dim=1), torch.ones(n), atol=1e-5)
    assert bool((soft >= 0).all())
    assert torch.allclose(torch.einsum("ij,jkl->ikl", soft, inputs), blended, atol=1e-3)
    assert int((soft > 1e-9).sum(dim=1).max()) <= 2
    # Every example is somebody's partner once.
    assert torch.allclose(soft.sum(dim=0), torch.ones(n), atol=1e-5)


def test_average_by_hand():
    net = nn.Linear(1, 1)
    net.bias.requires_grad_(False)
    average: dict[str, torch.Tensor] = {}
    for value in (1.0, 2.0, 4.0):
        with torch.no_grad():
            net.weight.fill_(value)
        update_average(net, average, 0.5, step=1000)
    # 1, then (1 + 2) / 2, then (1.5 + 4) / 2; what is frozen is not averaged.
    assert set(average) == {"weight"}
    assert average["weight"].item() == pytest.approx(2.75)
    assert net.weight.item() == 4.0


def test_average_of_a_short_phase_forgets_where_it_started():
    net = nn.Linear(1, 1, bias=False)
    average: dict[str, torch.Tensor] = {}
    for step, value in enumerate((0.0, 1.0)):
        with torch.no_grad():
            net.weight.fill_(value)
        update_average(net, average, 0.999, step)
    # (1 + 1) / (10 + 1) of the start stays, not 99.9 %.
    assert average["weight"].item() == pytest.approx(1 - 2 / 11)

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipelines.errors import ConfigError
from pipelines.training.fit import OPTIMIZERS, make_optimizer, parameter_groups, rate_factor

SCHEDULES = ("cosine", "one_cycle", "constant")


@pytest.mark.parametrize(
    ("step", "n_steps", "schedule", "warmup", "expected"),
    [
        (0, 10, "constant", 0.0, 1.0),
        (9, 10, "constant", 0.0, 1.0),
        # two steps of warm-up rise by thirds, so that the third is at the peak
        (0, 10, "constant", 0.2, 1 / 3),
        (1, 10, "constant", 0.2, 2 / 3),
        (2, 10, "constant", 0.2, 1.0),
        (0, 10, "cosine", 0.0, 1.0),
        (5, 10, "cosine", 0.0, 0.5),
        (2, 10, "cosine", 0.2, 1.0),
        (6, 10, "cosine", 0.2, 0.5),
        (5, 10, "one_cycle", 0.0, 0.50005),
        # the last one of a long cosine is all but nothing
        (9_999, 10_000, "cosine", 0.0, 2.467e-8),
        (9_999, 10_000, "one_cycle", 0.3, 1e-4),
        (0, 1, "cosine", 0.0, 1.0),
    ],
)
def test_rate_factor_by_hand(step, n_steps, schedule, warmup, expected):
    assert rate_factor(step, n_steps, schedule, warmup) == pytest.approx(expected, rel=1e-2)


def test_one_cycle_starts_at_a_25th():
    assert rate_factor(0, 100_000, "one_cycle", 0.3) == pytest.approx(1 / 25, rel=1e-3)


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from(SCHEDULES),
    st.floats(0, 0.99),
)
def test_rate_rises_through_the_warm_up_then_never_rises(n_steps, schedule, warmup):
    rates = [rate_factor(step, n_steps, schedule, warmup) for step in range(n_steps)]
    assert all(0 < rate <= 1 for rate in rates)
    n_warmup = round(n_steps * warmup)
    assert all(a < b for a, b in itertools.pairwise(rates[:n_warmup]))
    after = rates[n_warmup:]
    assert all(a >= b for a, b in itertools.pairwise(after))
    if after:
        assert after[0] == pytest.approx(1.0)


def tiny() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD), ("rmsprop", torch.optim.RMSprop)],
)
def test_optimizer_by_name(name, kind, train_params):
    groups = parameter_groups([(tiny(), 1.0)], 0.1, 0.02)
    optimizer = make_optimizer(groups, train_params(optimizer=name, momentum=0.7))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == group["peak_lr"] == 0.1
        assert group.get("momentum", 0.7) == 0.7
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.02}


def test_sgd_without_momentum_is_plain(train_params):
    optimizer = make_optimizer(
        parameter_groups([(tiny(), 1.0)], 0.1, 0.0), train_params(optimizer="sgd", momentum=0)
    )
    assert not optimizer.param_groups[0]["nesterov"]


def test_unknown_optimizer_is_refused_with_those_there_are(train_params):
    groups = parameter_groups([(tiny(), 1.0)], 0.1, 0.0)
    with pytest.raises(ConfigError, match=r"train\.optimizer: .*'lion'") as caught:
        make_optimizer(groups, train_params(optimizer="lion"))
    assert all(name in str(caught.value) for name in OPTIMIZERS)


def test_biases_and_norms_do_not_decay():
    net = tiny()
    groups = parameter_groups([(net, 1.0)], 0.1, 0.02)
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    for name, parameter in net.named_parameters():
        assert decays[id(parameter)] == (0.02 if parameter.ndim > 1 else 0.0), name
    assert len(decays) == len(list(net.parameters()))


def test_shares_scale_the_rate_and_frozen_parameters_are_left_out():
    head, body, frozen = nn.Linear(4, 2), tiny(), tiny().requires_grad_(False)
    groups = parameter_groups([(head, 1.0), (body, 0.5), (frozen, 0.25)], 0.1, 0.02)
    rates = {id(p): g["peak_lr"] for g in groups for p in g["params"]}
    assert {rates[id(p)] for p in head.parameters()} == {0.1}
    assert {rates[id(p)] for p in body.parameters()} == {0.05}
    assert not {id(p) for p in frozen.parameters()} & set(rates)
    # None of them is empty: torch refuses that.
    assert all(group["params"] for group in groups)

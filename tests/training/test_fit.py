from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from pipelines.config.train import DistillParams
from pipelines.errors import ConfigError
from pipelines.kinds.classification.train import class_weights
from pipelines.training.fit import (
    OPTIMIZERS,
    EpochLog,
    best_values,
    distilled,
    history_csv,
    make_optimizer,
    mixed,
    parameter_groups,
    rate_factor,
    update_average,
)
from tests.training import toy
from tests.training.toy import same


# -- learning rates and optimisers -----------------------------------------------------------------
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
        (0, 100_000, "one_cycle", 0.3, 1 / 25),
        (0, 1, "cosine", 0.0, 1.0),
    ],
)
def test_rate_factor_by_hand(step, n_steps, schedule, warmup, expected):
    assert rate_factor(step, n_steps, schedule, warmup) == pytest.approx(expected, rel=1e-2)


@settings(deadline=None)
@given(
    st.integers(1, 300), st.sampled_from(["cosine", "one_cycle", "constant"]), st.floats(0, 0.99)
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


# -- for small data sets ---------------------------------------------------------------------------
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


def distill(**changes) -> DistillParams:
    return DistillParams.model_validate(
        {"teacher": "t", "temperature": 2.0, "weight": 0.25} | changes
    )


def test_distilled_loss_by_hand():
    # Odds of 3 to 1 by the teacher; the student's logits 2 ln 2 and 0 are, halved, 2 to 1.
    teacher, student = torch.tensor([[0.75, 0.25]]), torch.tensor([[2 * math.log(2), 0.0]])
    divergence = 0.75 * math.log(0.75 / (2 / 3)) + 0.25 * math.log(0.25 / (1 / 3))
    got = distilled(torch.tensor(5.0), student, teacher, distill())
    assert got.item() == pytest.approx(0.75 * 5.0 + 0.25 * 4 * divergence, rel=1e-6)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.floats(1, 20), st.floats(0, 1), st.integers(0, 99))
def test_distilled_loss_is_the_formula(n, n_classes, temperature, weight, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(0, 3, (2, n, n_classes))

    def softened(logits):
        powers = np.exp(logits / temperature)
        return powers / powers.sum(axis=1, keepdims=True)

    p, q = softened(theirs), softened(ours)
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    params = distill(temperature=temperature, weight=weight)
    got = distilled(torch.tensor(1.5), torch.tensor(ours), torch.tensor(p), params).item()
    expected = (1 - weight) * 1.5 + weight * temperature**2 * divergence
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_its_gradient_leads_to_the_teacher_and_is_as_large_at_any_temperature():
    student = torch.zeros(1, 3, requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, -1.0]])
    sizes = []
    for temperature in (10.0, 20.0):
        soft = torch.softmax(teacher / temperature, dim=1)
        params = distill(temperature=temperature, weight=1.0)
        loss = distilled(torch.tensor(0.0), student, soft, params)
        (gradient,) = torch.autograd.grad(loss, student)
        # Of each logit, T (own - teacher's probability).
        expected = temperature * (torch.full((1, 3), 1 / 3) - soft)
        torch.testing.assert_close(gradient, expected)
        assert (gradient * teacher).sum() < 0, "a step down moves towards the teacher"
        sizes.append(gradient.norm().item())
    # At high temperatures (own - teacher's logit) / n_classes.
    assert sizes == pytest.approx([math.sqrt(2) / 3] * 2, rel=0.01)


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


# -- history ---------------------------------------------------------------------------------------
def values(*numbers: float) -> dict[str, float]:
    return dict(zip(("val_loss", "val_accuracy", "val_macro_f1"), numbers, strict=True))


ROWS = [
    EpochLog(1, "head", 0.01, 1.5, values(1.25, 0.5, 0.4)),
    EpochLog(2, "head", 0.005, 1.0, values(1.0, 0.75, 0.7)),
    EpochLog(3, "tail", 1e-5, 0.5, values(0.9, 0.75, 0.7)),
    EpochLog(4, "tail", 1e-9, 0.25, values(0.8, 0.7, 0.6)),
]


@pytest.mark.parametrize(
    ("monitor", "epoch"),
    # the lower loss settles the tie of epochs 2 and 3
    [("val_accuracy", 3), ("val_macro_f1", 3), ("val_loss", 4)],
)
def test_best_values_are_those_of_the_epoch_that_was_kept(monitor, epoch):
    assert best_values(ROWS, monitor) == ROWS[epoch - 1].val


def test_history_is_a_table_with_a_row_an_epoch_and_six_digits():
    text = history_csv([*ROWS, EpochLog(5, "tail", 1 / 3, 2 / 3, values(1e9 / 7, 1.0, 0.0))])
    heading, *rows = text.split("\n")
    assert heading.split(",") == list(ROWS[0].row())
    assert heading.split(",")[4:] == list(ROWS[0].val)
    assert rows[:3] == [
        "1,head,0.01,1.5,1.25,0.5,0.4",
        "2,head,0.005,1,1,0.75,0.7",
        "3,tail,1e-05,0.5,0.9,0.75,0.7",
    ]
    assert rows[4:] == ["5,tail,0.333333,0.666667,1.42857e+08,1,0", ""]


def test_a_terminal_shows_of_an_epoch_what_is_known():
    assert str(ROWS[1]) == (
        "epoch 2 (head): train_loss 1.000, val_loss 1.000, val_accuracy 0.750, val_macro_f1 0.700"
    )
    alone = EpochLog(3, "tail", 1e-5, 0.5, values(math.nan, math.nan, math.nan))
    assert str(alone) == "epoch 3 (tail): train_loss 0.500"


# -- the loop --------------------------------------------------------------------------------------
class Stop(Exception):
    """Stands for whatever ends a process between two epochs."""


def val_loss(model: nn.Module) -> float:
    inputs, truth = toy.points(10, 2)
    with torch.inference_mode():
        return functional.cross_entropy(model.eval()(inputs), truth).item()


def test_fit_learns_a_separable_problem(train_params, tmp_path):
    params = train_params(head_phase={"epochs": 4}, tail_phase={"epochs": 6})
    _, history = toy.run(params, tmp_path)
    assert [log.epoch for log in history] == list(range(1, 11))
    assert [log.phase for log in history] == ["head"] * 4 + ["tail"] * 6
    assert max(log.val["val_accuracy"] for log in history) >= 0.9
    assert history[-1].train_loss < history[0].train_loss / 2


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "rmsprop"])
def test_two_runs_are_the_same_bits(optimizer, train_params, tmp_path):
    params = train_params(optimizer=optimizer, mixup_alpha=0.2, ema_decay=0.5, balance="sampling")
    first, history = toy.run(params, tmp_path / "a")
    # Whatever was drawn before does not matter.
    torch.rand(100)
    np.random.default_rng().random()
    second, again = toy.run(params, tmp_path / "b")
    assert same(first, second)
    assert history == again


def test_head_phase_leaves_the_body_bit_identical(train_params, tmp_path):
    params = train_params(tail_phase={"epochs": 0})
    model, _ = toy.run(params, tmp_path)
    fresh = toy.Toy()
    assert same(model.body, fresh.body)
    assert not same(model.head, fresh.head)


def test_tail_phase_trains_the_body(train_params, tmp_path):
    model, _ = toy.run(train_params(head_phase={"epochs": 0}), tmp_path)
    assert not torch.equal(model.body[0].weight, toy.Toy().body[0].weight)


def test_without_epochs_there_is_nothing_to_train(train_params):
    with pytest.raises(ValueError, match="both 0: nothing to train"):
        train_params(head_phase={"epochs": 0}, tail_phase={"epochs": 0})


def test_patience_ends_a_phase_and_the_best_epoch_is_kept(train_params, tmp_path):
    # So large a rate that training soon goes wrong.
    params = train_params(
        head_phase={"epochs": 0},
        tail_phase={"epochs": 40, "learning_rate": 20.0, "patience": 3, "schedule": "constant"},
        monitor="val_loss",
        optimizer="sgd",
    )
    model, history = toy.run(params, tmp_path)
    losses = [log.val["val_loss"] for log in history]
    best = int(np.argmin(losses))
    assert len(history) < 40
    assert len(history) == best + 1 + 3
    assert val_loss(model) == pytest.approx(losses[best], rel=1e-5)


def test_without_a_val_split_the_last_epoch_is_kept_and_nothing_ends_early(
    train_params, tmp_path, caplog
):
    # Towards its end this training gets worse: with a val split an earlier epoch is kept.
    params = train_params(
        head_phase={"epochs": 2, "patience": 1},
        tail_phase={"epochs": 8, "learning_rate": 20.0, "patience": 1, "schedule": "constant"},
        optimizer="sgd",
        ema_decay=0.5,
    )
    states = []
    caplog.set_level("INFO")
    model, history = toy.run(params, tmp_path / "a", has_val=False)
    assert [log.phase for log in history] == ["head"] * 2 + ["tail"] * 8
    assert all(
        math.isnan(log.val["val_loss"]) and math.isnan(log.val["val_accuracy"]) for log in history
    )
    assert all(math.isfinite(log.train_loss) for log in history)
    assert "epoch 10 (tail): train_loss" in caplog.text
    assert "val" not in caplog.text

    # The average of the weights, as after each epoch of any training.
    def stop(log):
        states.append(log.epoch)
        if log.epoch == 9:
            raise Stop

    with pytest.raises(Stop):
        toy.run(params, tmp_path / "b", has_val=False, on_epoch=stop)
    again, _ = toy.run(params, tmp_path / "b", has_val=False)
    assert states[-1] == 9
    assert same(model, again)
    chosen, _ = toy.run(params, tmp_path / "c")
    assert not same(model, chosen)


def test_patience_of_zero_never_ends_a_phase(train_params, tmp_path):
    phase = {"epochs": 12, "learning_rate": 20.0, "schedule": "constant"}
    params = train_params(head_phase={"epochs": 0}, tail_phase=phase, optimizer="sgd")
    assert len(toy.run(params, tmp_path)[1]) == 12


def test_a_stale_head_does_not_end_the_tail(train_params, tmp_path):
    head = {"epochs": 30, "learning_rate": 1e-12, "patience": 2}
    params = train_params(head_phase=head, tail_phase={"epochs": 3, "patience": 2})
    _, history = toy.run(params, tmp_path)
    n_head = sum(log.phase == "head" for log in history)
    assert n_head < 30
    assert sum(log.phase == "tail" for log in history) >= 2


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "val_macro_f1"])
def test_monitor_picks_the_epoch(monitor, train_params, tmp_path):
    params = train_params(
        monitor=monitor, tail_phase={"epochs": 8, "learning_rate": 0.3}, label_smoothing=0.3
    )
    model, history = toy.run(params, tmp_path)
    sign = -1 if monitor == "val_loss" else 1
    best = max(history, key=lambda log: (sign * log.val[monitor], -log.val["val_loss"]))
    # Logs and model belong together: the best epoch is what is left in the model.
    assert val_loss(model) == pytest.approx(best.val["val_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("smoothing", "balance"),
    [(0.0, "none"), (0.2, "none"), (0.0, "class_weights"), (0.2, "class_weights")],
)
def test_train_loss_is_the_formula(smoothing, balance, train_params, tmp_path):
    inputs, truth = toy.points(8, 1)
    rows = torch.arange(20)  # classes of 8, 8 and 4
    train = (inputs[rows], truth[rows])
    params = train_params(
        head_phase={"epochs": 1},
        tail_phase={"epochs": 0},
        label_smoothing=smoothing,
        balance=balance,
        batch_size=64,
    )
    _, history = toy.run(params, tmp_path, train=train)
    fresh = toy.Toy().eval()
    with torch.inference_mode():
        log_probabilities = torch.log_softmax(fresh(train[0]), dim=1).numpy()
    targets = (1 - smoothing) * np.eye(3)[train[1]] + smoothing / 3
    weights = np.array([20 / (3 * n) for n in (8, 8, 4)])
    weights = weights if balance == "class_weights" else np.ones(3)
    expected = -(targets * weights * log_probabilities).sum(axis=1).mean()
    assert history[0].train_loss == pytest.approx(expected, rel=1e-5)


def test_seed_and_mixup_change_the_result(train_params, tmp_path):
    plain, _ = toy.run(train_params(), tmp_path / "a")
    seeded, _ = toy.run(train_params(), tmp_path / "b", seed=6)
    blended, _ = toy.run(train_params(mixup_alpha=0.4), tmp_path / "c")
    assert not same(plain, seeded)
    assert not same(plain, blended)


def test_moving_average_is_what_is_measured_and_kept(train_params, tmp_path):
    phases = {"head_phase": {"epochs": 1}, "tail_phase": {"epochs": 0}}
    raw, _ = toy.run(train_params(**phases), tmp_path / "a")
    averaged, history = toy.run(train_params(**phases, ema_decay=0.9), tmp_path / "b")
    start = toy.Toy()
    # The average lags behind: between the start and where the raw weights have got to.
    moved = float((raw.head.weight - start.head.weight).detach().norm())
    lagged = float((averaged.head.weight - start.head.weight).detach().norm())
    assert 0 < lagged < moved
    assert history[0].val["val_loss"] == pytest.approx(val_loss(averaged), rel=1e-5)


def test_learning_rate_in_the_log_follows_the_schedule(train_params, tmp_path):
    phase = {"epochs": 4, "learning_rate": 0.02, "schedule": "cosine", "warmup_fraction": 0.0}
    _, history = toy.run(train_params(head_phase=phase, tail_phase={"epochs": 0}), tmp_path)
    # 48 images in batches of 8: the last step of epoch e is number 6 e - 1 of 24.
    expected = [0.02 * 0.5 * (1 + math.cos(math.pi * (6 * e - 1) / 24)) for e in range(1, 5)]
    assert [log.learning_rate for log in history] == pytest.approx(expected, rel=1e-6)


HARD = {
    "mixup_alpha": 0.3,
    "ema_decay": 0.8,
    "balance": "sampling",
    "tail_phase": {"epochs": 4, "patience": 2},
}


@pytest.mark.parametrize("stop_at", range(1, 8))
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_stopped_run_goes_on_to_the_same_bits(stop_at, optimizer, train_params, tmp_path):
    params = train_params(**HARD, optimizer=optimizer)
    straight, history = toy.run(params, tmp_path / "straight")
    if stop_at > len(history):
        pytest.skip("patience ended the run before")

    def stop(log):
        if log.epoch == stop_at:
            raise Stop

    with pytest.raises(Stop):
        toy.run(params, tmp_path / "stopped", on_epoch=stop)
    seen, trained = [], []
    resumed, again = toy.run(params, tmp_path / "stopped", on_epoch=seen.append, trained=trained)
    # The epoch in which it stopped had no checkpoint yet; those before it are not trained again.
    assert len(trained) == len(history) - (stop_at - 1)
    assert same(straight, resumed)
    assert again == history
    # The tracker is told of all epochs, the earlier ones included.
    assert seen == history


def test_killed_in_the_head_and_in_the_tail_ends_in_the_same_bits(train_params, tmp_path):
    params = train_params(**HARD)
    straight, history = toy.run(params, tmp_path / "straight")
    text = json.dumps(params.model_dump(mode="json"))
    for kill_at in (2, 5):
        command = [sys.executable, toy.__file__, str(tmp_path / "killed"), text, str(kill_at)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
    seen, trained = [], []
    resumed, again = toy.run(params, tmp_path / "killed", on_epoch=seen.append, trained=trained)
    # Three epochs of the head and one of the tail were safe.
    assert trained[0] == (1, 1)
    assert same(straight, resumed)
    assert again == history == seen


def test_finished_run_is_not_trained_again(train_params, tmp_path):
    first, history = toy.run(train_params(), tmp_path)
    trained = []
    second, again = toy.run(train_params(), tmp_path, trained=trained)
    assert not trained
    assert same(first, second)
    # Neither is left in training mode, where a look at val would move the batch norms.
    assert not any(module.training for net in (first, second) for module in net.modules())
    assert history == again


def test_checkpoint_of_another_key_is_not_gone_on_from(train_params, tmp_path):
    other = train_params(tail_phase={"epochs": 1})
    toy.run(other, tmp_path, key="other")
    model, history = toy.run(train_params(), tmp_path)
    straight, expected = toy.run(train_params(), tmp_path / "fresh")
    assert same(model, straight)
    assert history == expected

from __future__ import annotations

import importlib.util
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

_SPEC = importlib.util.spec_from_file_location("toy", Path(__file__).with_name("toy.py"))
assert _SPEC is not None
toy = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(toy)


class Stop(Exception):
    """Stands for whatever ends a process between two epochs."""


def same(a, b) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


# -- learning -------------------------------------------------------------------------------------
def test_fit_learns_a_separable_problem(train_params, tmp_path):
    params = train_params(head_phase={"epochs": 4}, tail_phase={"epochs": 6})
    model, history = toy.run(params, tmp_path)
    assert [log.epoch for log in history] == list(range(1, 11))
    assert [log.phase for log in history] == ["head"] * 4 + ["tail"] * 6
    assert max(log.val["val_accuracy"] for log in history) >= 0.9
    assert history[-1].train_loss < history[0].train_loss / 2
    # Logs and model belong together: the best epoch is what is left in the model.
    inputs, truth = toy.points(10, 2)
    with torch.inference_mode():
        loss = functional.cross_entropy(model.eval()(inputs), truth).item()
    best = max(history, key=lambda log: (log.val["val_macro_f1"], -log.val["val_loss"]))
    assert loss == pytest.approx(best.val["val_loss"], abs=1e-6)


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


def test_another_seed_is_another_run(train_params, tmp_path):
    first, _ = toy.run(train_params(), tmp_path / "a")
    second, _ = toy.run(train_params(), tmp_path / "b", seed=6)
    assert not same(first, second)


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


# -- stopping and choosing ------------------------------------------------------------------------
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
    inputs, truth = toy.points(10, 2)
    with torch.inference_mode():
        kept = functional.cross_entropy(model.eval()(inputs), truth).item()
    assert kept == pytest.approx(losses[best], rel=1e-5)


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
    inputs, truth = toy.points(10, 2)
    with torch.inference_mode():
        kept = functional.cross_entropy(model.eval()(inputs), truth).item()
    assert kept == pytest.approx(best.val["val_loss"], rel=1e-5)


# -- losses ---------------------------------------------------------------------------------------
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


def test_mixup_and_smoothing_change_the_result(train_params, tmp_path):
    plain, _ = toy.run(train_params(), tmp_path / "a")
    for number, change in enumerate(({"mixup_alpha": 0.4}, {"label_smoothing": 0.2})):
        other, _ = toy.run(train_params(**change), tmp_path / f"b{number}")
        assert not same(plain, other)


def test_moving_average_is_what_is_measured_and_kept(train_params, tmp_path):
    phases = {"head_phase": {"epochs": 1}, "tail_phase": {"epochs": 0}}
    raw, _ = toy.run(train_params(**phases), tmp_path / "a")
    averaged, history = toy.run(train_params(**phases, ema_decay=0.9), tmp_path / "b")
    start = toy.Toy()
    # The average lags behind: between the start and where the raw weights have got to.
    moved = float((raw.head.weight - start.head.weight).detach().norm())
    lagged = float((averaged.head.weight - start.head.weight).detach().norm())
    assert 0 < lagged < moved
    inputs, truth = toy.points(10, 2)
    with torch.inference_mode():
        loss = functional.cross_entropy(averaged.eval()(inputs), truth).item()
    assert history[0].val["val_loss"] == pytest.approx(loss, rel=1e-5)


def test_learning_rate_in_the_log_follows_the_schedule(train_params, tmp_path):
    phase = {"epochs": 4, "learning_rate": 0.02, "schedule": "cosine", "warmup_fraction": 0.0}
    _, history = toy.run(train_params(head_phase=phase, tail_phase={"epochs": 0}), tmp_path)
    # 48 images in batches of 8: the last step of epoch e is number 6 e - 1 of 24.
    expected = [0.02 * 0.5 * (1 + math.cos(math.pi * (6 * e - 1) / 24)) for e in range(1, 5)]
    assert [log.learning_rate for log in history] == pytest.approx(expected, rel=1e-6)


# -- going on after a stop ------------------------------------------------------------------------
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

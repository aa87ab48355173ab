"""Points around corners of a cube, and a body and a head that learn to tell them apart.

Run as a script it trains in a process of its own, which kills itself after an epoch.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config.train import TrainParams
from pipelines.kinds.train import KINDS
from pipelines.training.batches import class_draw_weights, epoch_order
from pipelines.training.fit import EpochLog, Phase, fit
from pipelines.training.runtime import Runtime

N_CLASSES = 3
KIND = KINDS["classification"]


class Toy(nn.Module):
    """A body with a batch norm, dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.body = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1))
        self.head = nn.Linear(16, N_CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(inputs))
        return logits


def same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers, bit for bit."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def points(n_each: int, seed: int, spread: float = 0.6) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    truth = np.repeat(np.arange(N_CLASSES), n_each)
    corners = np.eye(N_CLASSES, 6) * 2
    values = corners[truth] + generator.normal(0, spread, (len(truth), 6))
    return torch.tensor(values, dtype=torch.float32), torch.from_numpy(truth)


def phases(
    model: Toy,
    params: TrainParams,
    train: tuple[Tensor, Tensor],
    trained: list[tuple[int, int]],
    *,
    has_val: bool,
) -> list[Phase]:
    inputs, truth = train
    val_inputs, val_truth = points(10, 2)
    size = params.batch_size

    def batches_of(phase: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            trained.append((phase, epoch))
            generator = np.random.default_rng([phase, epoch])
            weights = class_draw_weights(truth.numpy()) if params.balance == "sampling" else None
            order = epoch_order(len(truth), generator, weights)
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                yield inputs[rows], truth[rows]

        return batches

    def head_mode() -> None:
        model.body.requires_grad_(False)
        model.train()
        model.body.eval()

    def all_mode() -> None:
        model.requires_grad_(True)
        model.train()

    shared = {
        "n_batches": -(-len(truth) // size),
        "forward": model.forward,
        "val_outputs": (lambda: model(val_inputs)) if has_val else None,
        "val_truth": val_truth.numpy(),
    }
    head = [(model.head, 1.0)]
    whole = [(model.head, 1.0), (model.body, 0.5)]
    return [
        Phase("head", params.head_phase, head, batches_of(0), train_mode=head_mode, **shared),
        Phase("tail", params.tail_phase, whole, batches_of(1), train_mode=all_mode, **shared),
    ]


def run(
    params: TrainParams,
    folder: Path,
    *,
    on_epoch: Callable[[EpochLog], None] = lambda log: None,
    key: str = "key",
    seed: int = 5,
    train: tuple[Tensor, Tensor] | None = None,
    trained: list[tuple[int, int]] | None = None,
    has_val: bool = True,
) -> tuple[Toy, list[EpochLog]]:
    """Train a new toy; gives it and its history, and notes phase and epoch of what was trained."""
    model = Toy()
    train = train if train is not None else points(16, 1)
    history = fit(
        model,
        phases(model, params, train, trained if trained is not None else [], has_val=has_val),
        params,
        criterion=KIND.criterion(train[1].numpy(), N_CLASSES, params),
        values=KIND.values,
        seed=seed,
        checkpoint_dir=folder,
        key=key,
        on_epoch=on_epoch,
        what="toy",
        runtime=Runtime(),
    )
    return model, history


def main(folder: str, params: str, kill_at: str) -> None:
    def on_epoch(log: EpochLog) -> None:
        if log.epoch == int(kill_at):
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    run(TrainParams.model_validate(json.loads(params)), Path(folder), on_epoch=on_epoch)


if __name__ == "__main__":
    main(*sys.argv[1:])

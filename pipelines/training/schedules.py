"""Learning rates over the steps of a phase, and optimisers by name: two plain dictionaries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from pipelines.config.train import TrainParams
from pipelines.errors import ConfigError

#: Share of the peak at which one-cycle starts, and at which it ends.
_ONE_CYCLE_START, _ONE_CYCLE_END = 1 / 25, 1e-4


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def rate_factor(step: int, n_steps: int, schedule: str, warmup_fraction: float) -> float:
    """The learning rate of a step, as a share of the phase's peak.

    Args:
        step: from 0 to ``n_steps - 1``.
        n_steps: steps of the phase.
        schedule: ``cosine`` (to 0), ``one_cycle`` (from 1/25 up, then down to 1/10,000) or
            ``constant``.
        warmup_fraction: share of the steps in which the rate rises.

    Returns:
        In (0, 1].

    References:
        Loshchilov and Hutter 2017, "SGDR" (cosine); Smith and Topin 2019, "Super-convergence"
        (one-cycle).
    """
    n_warmup = round(n_steps * warmup_fraction)
    if step < n_warmup:
        rise = (step + 1) / (n_warmup + 1)
        if schedule == "one_cycle":
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * (1 - _cosine(rise))
        return rise
    progress = (step - n_warmup) / max(n_steps - n_warmup, 1)
    if schedule == "constant":
        return 1.0
    floor = _ONE_CYCLE_END if schedule == "one_cycle" else 0.0
    return floor + (1 - floor) * _cosine(progress)


Groups = list[dict[str, Any]]

OPTIMIZERS: dict[str, Callable[[Groups, TrainParams], torch.optim.Optimizer]] = {
    "adamw": lambda groups, params: torch.optim.AdamW(groups),
    "sgd": lambda groups, params: torch.optim.SGD(
        groups, momentum=params.momentum, nesterov=params.momentum > 0
    ),
    # Decay 0.9 as in the MnasNet and MobileNet studies (SEEDS: RMSprop, decay 0.9, momentum 0.9).
    "rmsprop": lambda groups, params: torch.optim.RMSprop(
        groups, alpha=0.9, momentum=params.momentum
    ),
}


def make_optimizer(groups: Groups, params: TrainParams) -> torch.optim.Optimizer:
    """The optimiser that params name.

    Args:
        groups: parameter groups with their learning rates and weight decays.
        params: name and momentum.

    Raises:
        ConfigError: if there is no such optimiser; lists those that are.
    """
    if params.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"params.yaml: train.optimizer: there is no optimiser {params.optimizer!r}. "
            f"Expected one of {', '.join(OPTIMIZERS)}."
        )
    return OPTIMIZERS[params.optimizer](groups, params)


def parameter_groups(
    modules: Iterable[tuple[nn.Module, float]], learning_rate: float, weight_decay: float
) -> Groups:
    """Parameter groups with discriminative learning rates; biases and norms do not decay.

    Args:
        modules: each with its share of the learning rate.
        learning_rate: of a module with share 1.
        weight_decay: of matrices and kernels.
    """
    groups: Groups = []
    for module, share in modules:
        kernels = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
        for parameters, decay in ((kernels, weight_decay), (vectors, 0.0)):
            if parameters:
                rate = learning_rate * share
                groups.append(
                    {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
                )
    return groups

"""What small data sets need: class weights, mixup, and a moving average of the weights."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def class_weights(class_index: NDArray[np.int64], n_classes: int) -> Tensor:
    """Weights that let each class count the same; their mean over images is 1.

    Args:
        class_index: (n,) of the train split.
        n_classes: number of classes, each of which occurs.

    References:
        scikit-learn, ``compute_class_weight("balanced")``: n / (n_classes * count).
    """
    counts = np.bincount(class_index, minlength=n_classes)
    return torch.tensor(len(class_index) / (n_classes * np.maximum(counts, 1)), dtype=torch.float32)


def mixed(
    inputs: Tensor, targets: Tensor, alpha: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A batch in which each example is blended with another one.

    Args:
        inputs: (n, ...).
        targets: (n, n_classes) probabilities.
        alpha: of the Beta distribution that draws the share; > 0.
        generator: draws share and partners.

    References:
        Zhang et al. 2018, "mixup"; at a hidden layer, Verma et al. 2019, "Manifold mixup".
    """
    share = float(generator.beta(alpha, alpha))
    partner = torch.from_numpy(generator.permutation(len(inputs)))
    return (
        share * inputs + (1 - share) * inputs[partner],
        share * targets + (1 - share) * targets[partner],
    )


def update_average(model: nn.Module, average: dict[str, Tensor], decay: float, step: int) -> None:
    """Move an exponential moving average of the trained parameters one step on.

    Args:
        model: its trainable parameters are averaged.
        average: by name; filled at the first step, changed in place.
        decay: share of the old average that stays, in (0, 1).
        step: of the phase, from 0. Early on less stays, (1 + step) / (10 + step), so that a short
            phase is not held back by the weights that it started from.

    References:
        Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """
    kept = min(decay, (1 + step) / (10 + step))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        value = parameter.detach()
        if name not in average:
            average[name] = value.clone()
        else:
            average[name].lerp_(value, 1 - kept)

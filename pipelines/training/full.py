"""Training on images, through every layer: the ordinary loop, for a GPU or for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.backbones.heads import Classifier
from pipelines.backbones.spec import backbone
from pipelines.config.train import TrainParams
from pipelines.data.workers import ordered_map
from pipelines.training.batches import (
    EVAL_BATCH,
    Split,
    chunks,
    device_of,
    draw_weights,
    epoch_order,
    train_from,
    trained_modules,
)
from pipelines.training.fit import Phase
from pipelines.training.runtime import Runtime, shown


def full_phases(
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split | None,
    normalise: Callable[[Tensor], Tensor],
    *,
    seed: int,
    what: str,
    runtime: Runtime,
) -> list[Phase]:
    """Phases on images through the whole network; the second trains every layer.

    Pixels are normalised from (n, h, w, 3) bytes to (n, 3, h, w).

    Raises:
        ConfigError: if images are to be weighted by source and sources cannot help.
    """
    weights = draw_weights(train, params.balance, what)
    # The statistics of its norms are those of a larger network.
    is_inherited = backbone(params.backbone, params.width).spec.inherits is not None

    def order_of(phase: int, epoch: int) -> NDArray[np.int64]:
        generator = np.random.default_rng([seed, phase, epoch, 2])
        return epoch_order(len(train.truth), generator, weights, train.mates)

    def soft_targets_of(phase: int) -> Callable[[int], Iterator[Tensor]] | None:
        soft = train.soft_targets
        if soft is None:
            return None
        return lambda epoch: (
            soft[rows] for rows in chunks(order_of(phase, epoch), params.batch_size)
        )

    def batches_of(phase: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            order = order_of(phase, epoch)
            # No view is shown twice: those of the second phase follow on those of the first.
            number = 1 + phase * params.head_phase.epochs + epoch
            return _batches(train, order, number, params.batch_size, normalise, runtime)

        return batches

    def forward(pixels: Tensor) -> Tensor:
        outputs: Tensor = model(pixels)[0]
        return outputs

    val_outputs = None if val is None else partial(outputs_of, model, val, normalise, runtime)
    val_truth = np.empty(0) if val is None else val.plain_truth()
    n_batches = len(chunks(np.arange(len(train.truth)), params.batch_size))
    return [
        Phase(
            name="head",
            params=params.head_phase,
            modules=[(model.head, 1.0)],
            batches=batches_of(0),
            n_batches=n_batches,
            forward=forward,
            val_outputs=val_outputs,
            val_truth=val_truth,
            train_mode=partial(train_from, model, len(model.blocks), train_norms=is_inherited),
            soft_targets=soft_targets_of(0),
        ),
        Phase(
            name="tail",
            params=params.tail_phase,
            modules=trained_modules(model, 0, params.layer_decay),
            batches=batches_of(1),
            n_batches=n_batches,
            forward=forward,
            val_outputs=val_outputs,
            val_truth=val_truth,
            train_mode=partial(
                train_from, model, 0, train_norms=is_inherited or params.weights == "none"
            ),
            soft_targets=soft_targets_of(1),
        ),
    ]


def outputs_of(
    model: Classifier,
    split: Split,
    normalise: Callable[[Tensor], Tensor],
    runtime: Runtime | None = None,
) -> Tensor:
    """Answers to the plain views of a split, (n, ...) float32 on the CPU.

    The network stays in the mode that it is in.

    Args:
        runtime: whose processes share the work; None for this one alone.
    """

    def answers(rows: NDArray[np.int64]) -> Tensor:
        pictures = replace(split.pictures, entries=[split.pictures.entries[i] for i in rows])
        parts = [
            model(normalise(torch.from_numpy(batch)).to(device_of(model)))[0].float().cpu()
            for batch in pictures.batches(EVAL_BATCH)
        ]
        return torch.cat(parts)

    return (runtime or Runtime()).spread(np.arange(len(split.pictures.entries)), answers)


def _batches(
    train: Split,
    order: NDArray[np.int64],
    number: int,
    batch_size: int,
    normalise: Callable[[Tensor], Tensor],
    runtime: Runtime,
) -> Iterator[tuple[Tensor, Tensor]]:
    """View ``number`` of this process's share of the images in ``order``, decoded ahead."""
    entries = train.pictures.entries

    def view(row: np.int64) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        one = train.pictures.views(entries[int(row)], [number], plain=False)[0]
        return one, train.truth_in(int(row), [number])[0]

    shares = [(runtime.share(rows), rows) for rows in chunks(order, batch_size)]
    to_show = [shown(own, rows) for own, rows in shares]
    views = ordered_map(view, np.concatenate(to_show), window=2 * batch_size)
    for (own, _), rows in zip(shares, to_show, strict=True):
        batch, truth = map(np.stack, zip(*(next(views) for _ in rows), strict=True))
        yield normalise(torch.from_numpy(batch))[: len(own)], torch.from_numpy(truth)[: len(own)]

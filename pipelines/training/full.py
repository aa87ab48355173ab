"""Training on images, through every layer: the ordinary loop, for a GPU or for comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.backbones.heads import Classifier
from pipelines.config.train import TrainParams
from pipelines.data.workers import ordered_map
from pipelines.training.batches import (
    EVAL_BATCH,
    Split,
    chunks,
    device_of,
    epoch_order,
    freeze_before,
    set_modes,
    trained_modules,
)
from pipelines.training.fit import Phase
from pipelines.training.reweighing import draw_weights


def full_phases(
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split | None,
    normalise: Callable[[Tensor], Tensor],
    *,
    seed: int,
    what: str,
) -> list[Phase]:
    """Phases on images through the whole network; the second trains every layer.

    Args:
        model: on the device that trains.
        params: phases, balance.
        train: the train split.
        val: the val split; None trains without one.
        normalise: (n, h, w, 3) bytes to (n, 3, h, w) normalised pixels.
        seed: of the run.
        what: the task, for messages.

    Raises:
        ConfigError: if images are to be weighted by source and sources cannot help.
    """
    weights = draw_weights(train, params.balance, what)
    labels = torch.from_numpy(train.class_index)
    n_images = len(train.class_index)

    def batches_of(phase: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            generator = np.random.default_rng([seed, phase, epoch, 2])
            order = epoch_order(n_images, generator, weights)
            number = 1 + phase * params.head_phase.epochs + epoch
            entries = train.pictures.entries

            def view(row: np.int64) -> NDArray[np.uint8]:
                one: NDArray[np.uint8] = train.pictures.views(
                    entries[int(row)], [number], plain=False
                )[0]
                return one

            pixels = ordered_map(view, order, window=2 * params.batch_size)
            for rows in chunks(order, params.batch_size):
                batch = np.stack([next(pixels) for _ in rows])
                yield normalise(torch.from_numpy(batch)), labels[rows]

        return batches

    def forward(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels)[0]
        return logits

    def head_mode() -> None:
        freeze_before(model, len(model.blocks))
        set_modes(model, train_norms=False)

    def all_mode() -> None:
        freeze_before(model, 0)
        set_modes(model, train_norms=params.weights == "none")

    def logits_of(split: Split) -> Tensor:
        parts = [
            forward(normalise(torch.from_numpy(batch)).to(device_of(model))).float().cpu()
            for batch in split.pictures.batches(EVAL_BATCH)
        ]
        return torch.cat(parts)

    val_logits = None if val is None else partial(logits_of, val)
    val_class_index = np.empty(0, dtype=np.int64) if val is None else val.class_index
    n_batches = len(chunks(np.arange(n_images), params.batch_size))
    return [
        Phase(
            "head",
            params.head_phase,
            [(model.head, 1.0)],
            batches_of(0),
            n_batches,
            forward,
            val_logits,
            val_class_index,
            head_mode,
        ),
        Phase(
            "tail",
            params.tail_phase,
            trained_modules(model, 0, params.layer_decay),
            batches_of(1),
            n_batches,
            forward,
            val_logits,
            val_class_index,
            all_mode,
        ),
    ]

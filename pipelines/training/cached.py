"""Training on cached activations: the head on embeddings, then head and tail on activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.backbones.heads import Classifier
from pipelines.config.train import TrainParams
from pipelines.serving.sessions import Precision
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
from pipelines.training.trunk import Activations, cached_activations, plain_slots, train_slots

#: Ways in which a head that a tail follows sees each picture. Each is a pass through the tail, and
#: more of them changed no val loss beyond what the order of images does
#: (docs/experiments/training.md).
_HEAD_SLOTS = 3


def cached_phases(
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split | None,
    trunks: Mapping[Precision, bytes],
    cache_dir: Path,
    *,
    seed: int,
    what: str,
) -> list[Phase]:
    """Phases on stored activations of the frozen trunk.

    Args:
        model: its trunk is what ``trunks`` were made from.
        params: views, phases, balance.
        train: the train split.
        val: the val split; None trains without one.
        trunks: ONNX bytes by precision.
        cache_dir: of activations.
        seed: of the run.
        what: for progress bars.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``, or if images are to
            be weighted by source and sources cannot help.
    """
    # First of all: what it refuses should not cost the work of the trunk.
    weights = draw_weights(train, params.balance, what)
    stored = cached_activations(
        train.pictures,
        train.class_index,
        # A plain view shows the background that the others are to hide.
        train_slots(params.views, params.int8_views, has_plain=params.augment.background == 0),
        trunks,
        cache_dir,
        max_bytes=params.max_cache_bytes,
        what=f"{what}: train",
    )
    labels = torch.from_numpy(train.class_index)
    n_images, n_slots = stored.values.shape[:2]
    first_slot = np.random.default_rng([seed, 3]).permutation(n_images) % n_slots

    def rows_of(epoch: int, phase: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([seed, phase, epoch, 2])
        return chunks(epoch_order(n_images, generator, weights), params.batch_size)

    def turn_of(epoch: int, rows: NDArray[np.int64], n_turns: int) -> NDArray[np.int64]:
        # Each image shows its slots in turn, so that each is seen as often.
        turns: NDArray[np.int64] = (first_slot[rows] + epoch) % n_turns
        return turns

    n_head_slots = n_slots if params.tail_phase.epochs == 0 else min(n_slots, _HEAD_SLOTS)
    head_slots = np.linspace(0, n_slots - 1, n_head_slots).round().astype(np.int64)

    # Once, and only when a head is trained: a run that goes on with its tail does not need it.
    @cache
    def train_features() -> Tensor:
        return _embed_all(model, stored, head_slots)

    def head_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        values = train_features()
        for rows in rows_of(epoch, 0):
            yield values[rows, turn_of(epoch, rows, len(head_slots))], labels[rows]

    def tail_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in rows_of(epoch, 1):
            yield stored.take(rows, turn_of(epoch, rows, n_slots)), labels[rows]

    def head_mode() -> None:
        freeze_before(model, len(model.blocks))
        set_modes(model, train_norms=False)

    def tail_mode() -> None:
        freeze_before(model, model.cut)
        set_modes(model, train_norms=params.weights == "none")

    asked = (
        _NO_VAL if val is None else _val_of(model, params, val, trunks, cache_dir, f"{what}: val")
    )
    n_batches = len(chunks(np.arange(n_images), params.batch_size))
    return [
        Phase(
            "head",
            params.head_phase,
            [(model.head, 1.0)],
            head_batches,
            n_batches,
            model.head.forward,
            asked.head_logits,
            asked.class_index,
            head_mode,
        ),
        Phase(
            "tail",
            params.tail_phase,
            trained_modules(model, model.cut, params.layer_decay),
            tail_batches,
            n_batches,
            model.tail,
            asked.tail_logits,
            asked.class_index,
            tail_mode,
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Val:
    """The val split, each image once in each precision, as each phase asks for it."""

    head_logits: Callable[[], Tensor] | None
    tail_logits: Callable[[], Tensor] | None
    class_index: NDArray[np.int64]


_NO_VAL = _Val(None, None, np.empty(0, dtype=np.int64))


def _val_of(
    model: Classifier,
    params: TrainParams,
    val: Split,
    trunks: Mapping[Precision, bytes],
    cache_dir: Path,
    what: str,
) -> _Val:
    stored = cached_activations(
        val.pictures,
        val.class_index,
        plain_slots(params.int8_views),
        trunks,
        cache_dir,
        max_bytes=params.max_cache_bytes,
        what=what,
    )
    every_slot = np.arange(len(stored.slots))
    rows, slots = _all_rows(len(stored.values), every_slot)

    # As of the train split: a tail does not need it.
    @cache
    def features() -> Tensor:
        return _embed_all(model, stored, every_slot)

    def head_logits() -> Tensor:
        logits: Tensor = model.head(features().flatten(0, 1).to(device_of(model)))
        return logits

    def tail_logits() -> Tensor:
        parts = [
            model.tail(stored.take(*part).to(device_of(model))) for part in _parts(rows, slots)
        ]
        return torch.cat(parts)

    return _Val(head_logits, tail_logits, val.class_index[rows])


def _parts(
    rows: NDArray[np.int64], slots: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for start in range(0, len(rows), EVAL_BATCH):
        yield rows[start : start + EVAL_BATCH], slots[start : start + EVAL_BATCH]


def _all_rows(n_images: int, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Rows and slots of every image in each of some slots, image by image."""
    return np.repeat(np.arange(n_images), len(slots)), np.tile(slots, n_images)


def _embed_all(model: Classifier, activations: Activations, slots: NDArray[np.int64]) -> Tensor:
    """(n_images, n_slots, n_features) through the tail as it stands."""
    was_training = model.training
    model.eval()
    n_images = len(activations.values)
    with torch.inference_mode():
        parts = [
            model.embed(activations.take(*part).to(device_of(model))).cpu()
            for part in _parts(*_all_rows(n_images, slots))
        ]
    model.train(was_training)
    # Out of inference mode, so that a loss on top of them may keep gradients.
    embedded = torch.cat(parts).clone()
    return embedded.reshape(n_images, len(slots), -1)

"""Training on cached activations: the head on embeddings, then head and tail on activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
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
    train_from,
    trained_modules,
)
from pipelines.training.fit import Phase
from pipelines.training.reweighing import draw_weights
from pipelines.training.trunk import (
    Activations,
    Slot,
    cached_activations,
    plain_slots,
    train_slots,
)

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
        what: for progress bars.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``, or if images are to
            be weighted by source and sources cannot help.
    """
    # First of all: what it refuses should not cost the work of the trunk.
    weights = draw_weights(train, params.balance, what)

    def stored(split: Split, slots: Sequence[Slot], name: str) -> Activations:
        return cached_activations(
            split.pictures,
            split.class_index,
            slots,
            trunks,
            cache_dir,
            max_bytes=params.max_cache_bytes,
            what=f"{what}: {name}",
        )

    # A plain view shows the background that the others are to hide.
    has_plain = params.augment.background == 0
    slots = train_slots(params.views, params.int8_views, has_plain=has_plain)
    shown = _Train(model, params, stored(train, slots, "train"), weights, seed)
    asked = (
        _NO_VAL
        if val is None
        else _val_of(model, stored(val, plain_slots(params.int8_views), "val"))
    )
    return [
        Phase(
            name="head",
            params=params.head_phase,
            modules=[(model.head, 1.0)],
            batches=shown.embeddings,
            n_batches=shown.n_batches,
            forward=model.head.forward,
            val_logits=asked.head_logits,
            val_class_index=asked.class_index,
            train_mode=partial(train_from, model, len(model.blocks), train_norms=False),
        ),
        Phase(
            name="tail",
            params=params.tail_phase,
            modules=trained_modules(model, model.cut, params.layer_decay),
            batches=shown.activations,
            n_batches=shown.n_batches,
            forward=model.tail,
            val_logits=asked.tail_logits,
            val_class_index=asked.class_index,
            train_mode=partial(train_from, model, model.cut, train_norms=params.weights == "none"),
        ),
    ]


class _Train:
    """Batches of both phases; an image shows its slots in turn, so that each is seen as often."""

    def __init__(
        self,
        model: Classifier,
        params: TrainParams,
        stored: Activations,
        weights: NDArray[np.float64] | None,
        seed: int,
    ) -> None:
        self._model, self._stored, self._weights, self._seed = model, stored, weights, seed
        self._batch_size = params.batch_size
        self._labels = torch.from_numpy(stored.class_index)
        self._n_images, self._n_slots = stored.values.shape[:2]
        self._first_slot = (
            np.random.default_rng([seed, 3]).permutation(self._n_images) % self._n_slots
        )
        is_last = params.tail_phase.epochs == 0
        n_head_slots = self._n_slots if is_last else min(self._n_slots, _HEAD_SLOTS)
        self._head_slots = np.linspace(0, self._n_slots - 1, n_head_slots).round().astype(np.int64)
        self._embedded: Tensor | None = None

    @property
    def n_batches(self) -> int:
        return len(chunks(np.arange(self._n_images), self._batch_size))

    def embeddings(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Once, and only when a head is trained: a run that goes on with its tail does not need it.
        if self._embedded is None:
            self._embedded = _embed_all(self._model, self._stored, self._head_slots)
        for rows in self._rows(epoch, 0):
            slots = self._turn(epoch, rows, len(self._head_slots))
            yield self._embedded[rows, slots], self._labels[rows]

    def activations(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in self._rows(epoch, 1):
            slots = self._turn(epoch, rows, self._n_slots)
            yield self._stored.take(rows, slots), self._labels[rows]

    def _rows(self, epoch: int, phase: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([self._seed, phase, epoch, 2])
        order = epoch_order(self._n_images, generator, self._weights)
        return chunks(order, self._batch_size)

    def _turn(self, epoch: int, rows: NDArray[np.int64], n_turns: int) -> NDArray[np.int64]:
        turns: NDArray[np.int64] = (self._first_slot[rows] + epoch) % n_turns
        return turns


@dataclass(frozen=True, slots=True)
class _Val:
    """The val split, each image once in each precision, as each phase asks for it."""

    head_logits: Callable[[], Tensor] | None
    tail_logits: Callable[[], Tensor] | None
    class_index: NDArray[np.int64]


_NO_VAL = _Val(None, None, np.empty(0, dtype=np.int64))


def _val_of(model: Classifier, stored: Activations) -> _Val:
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

    return _Val(head_logits, tail_logits, stored.class_index[rows])


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

"""The two ways to train: on cached activations of a frozen trunk, or on images through every layer.

Each gives the phases that `fit` goes through: the head alone first, then head and tail together.
In both, the statistics of pretrained batch norms stay as they are: a small data set would only blur
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.backbones.heads import Classifier
from pipelines.config import TrainParams
from pipelines.data.loaders import Pictures, ordered_map
from pipelines.mobile.bundle import Precision
from pipelines.training.fit import Phase
from pipelines.training.trunk import (
    Activations,
    cached_activations,
    plain_slots,
    train_slots,
)

#: Rows that go through a network at once where no gradient is kept.
_EVAL_BATCH = 64


@dataclass(frozen=True, slots=True)
class Split:
    """The images of a split and their labels as numbers.

    Attributes:
        pictures: images.
        class_index: (n,).
    """

    pictures: Pictures
    class_index: NDArray[np.int64]


def epoch_order(
    class_index: NDArray[np.int64], generator: np.random.Generator, balance: str
) -> NDArray[np.int64]:
    """The images of an epoch, in order.

    Args:
        class_index: (n,) of the train split.
        generator: draws the order.
        balance: with ``sampling``, images are drawn with replacement, each class as often.

    Returns:
        (n,) rows.
    """
    n = len(class_index)
    if balance != "sampling":
        return generator.permutation(n)
    counts = np.bincount(class_index)
    chance = 1 / (np.count_nonzero(counts) * counts[class_index])
    return generator.choice(n, size=n, p=chance)


def _chunks(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Batches of rows; a last batch of one joins the one before it."""
    cuts = list(range(size, len(rows), size))
    if cuts and len(rows) - cuts[-1] == 1:
        cuts.pop()
    return np.split(rows, cuts)


def _freeze(model: Classifier, first_trained: int) -> None:
    for index, block in enumerate(model.blocks):
        block.requires_grad_(index >= first_trained)


def _set_modes(model: Classifier, *, train_norms: bool) -> None:
    model.train()
    if not train_norms:
        for module in model.blocks.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _tail_modules(model: Classifier, first: int, decay: float) -> list[tuple[nn.Module, float]]:
    blocks = list(model.blocks[first:])
    shares = [decay ** (len(blocks) - i) for i in range(len(blocks))]
    return [(model.head, 1.0), *zip(blocks, shares, strict=True)]


def cached_phases(
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split,
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
        val: the val split.
        trunks: ONNX bytes by precision.
        cache_dir: of activations.
        seed: of the run.
        what: for progress bars.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``.
    """
    stored = cached_activations(
        train.pictures,
        train.class_index,
        train_slots(params.views, params.int8_views),
        trunks,
        cache_dir,
        max_bytes=params.max_cache_bytes,
        what=f"{what}: train",
    )
    stored_val = cached_activations(
        val.pictures,
        val.class_index,
        plain_slots(params.int8_views),
        trunks,
        cache_dir,
        max_bytes=params.max_cache_bytes,
        what=f"{what}: val",
    )
    labels = torch.from_numpy(train.class_index)
    n_images, n_slots = stored.values.shape[:2]
    val_rows, val_slots = _all_rows(stored_val)
    first_slot: NDArray[np.int64] = np.random.default_rng([seed, 3]).integers(
        n_slots, size=n_images
    )

    def rows_of(epoch: int, phase: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([seed, phase, epoch, 2])
        return _chunks(epoch_order(train.class_index, generator, params.balance), params.batch_size)

    def slots_of(epoch: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        # Each image shows its slots in turn, so that each is seen as often.
        slots: NDArray[np.int64] = (first_slot[rows] + epoch) % n_slots
        return slots

    features: dict[str, Tensor] = {}

    def embedded(name: str, activations: Activations) -> Tensor:
        if name not in features:
            features[name] = _embed_all(model, activations)
        return features[name]

    def head_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        values = embedded("train", stored)
        for rows in rows_of(epoch, 0):
            yield values[rows, slots_of(epoch, rows)], labels[rows]

    def tail_batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in rows_of(epoch, 1):
            yield stored.take(rows, slots_of(epoch, rows)), labels[rows]

    def head_val() -> Tensor:
        logits: Tensor = model.head(embedded("val", stored_val).flatten(0, 1).to(_device(model)))
        return logits

    def tail_val() -> Tensor:
        parts = [
            model.tail(stored_val.take(*part).to(_device(model)))
            for part in _parts(val_rows, val_slots)
        ]
        return torch.cat(parts)

    def head_mode() -> None:
        _freeze(model, len(model.blocks))
        _set_modes(model, train_norms=False)

    def tail_mode() -> None:
        _freeze(model, model.cut)
        _set_modes(model, train_norms=params.weights == "none")

    val_class_index = val.class_index[val_rows]
    n_batches = len(_chunks(np.arange(n_images), params.batch_size))
    return [
        Phase(
            "head",
            params.head_phase,
            [(model.head, 1.0)],
            head_batches,
            n_batches,
            model.head.forward,
            head_val,
            val_class_index,
            head_mode,
        ),
        Phase(
            "tail",
            params.tail_phase,
            _tail_modules(model, model.cut, params.layer_decay),
            tail_batches,
            n_batches,
            model.tail,
            tail_val,
            val_class_index,
            tail_mode,
        ),
    ]


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _parts(
    rows: NDArray[np.int64], slots: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for start in range(0, len(rows), _EVAL_BATCH):
        yield rows[start : start + _EVAL_BATCH], slots[start : start + _EVAL_BATCH]


def _all_rows(activations: Activations) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n_images, n_slots = activations.values.shape[:2]
    rows, slots = np.divmod(np.arange(n_images * n_slots), n_slots)
    return rows, slots


def _embed_all(model: Classifier, activations: Activations) -> Tensor:
    """(n_images, n_slots, n_features) through the tail as it stands."""
    was_training = model.training
    model.eval()
    rows, slots = _all_rows(activations)
    with torch.inference_mode():
        parts = [
            model.embed(activations.take(*part).to(_device(model))).cpu()
            for part in _parts(rows, slots)
        ]
    model.train(was_training)
    # Out of inference mode, so that a loss on top of them may keep gradients.
    embedded = torch.cat(parts).clone()
    return embedded.reshape(*activations.values.shape[:2], -1)


def full_phases(
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split,
    normalise: Callable[[Tensor], Tensor],
    *,
    seed: int,
) -> list[Phase]:
    """Phases on images through the whole network; the second trains every layer.

    Args:
        model: on the device that trains.
        params: phases, balance.
        train: the train split.
        val: the val split.
        normalise: (n, h, w, 3) bytes to (n, 3, h, w) normalised pixels.
        seed: of the run.
    """
    labels = torch.from_numpy(train.class_index)
    n_images = len(train.class_index)

    def batches_of(phase: int) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
        def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
            generator = np.random.default_rng([seed, phase, epoch, 2])
            order = epoch_order(train.class_index, generator, params.balance)
            number = 1 + phase * params.head_phase.epochs + epoch
            entries = train.pictures.entries

            def view(row: np.int64) -> NDArray[np.uint8]:
                one: NDArray[np.uint8] = train.pictures.views(
                    entries[int(row)], [number], plain=False
                )[0]
                return one

            pixels = ordered_map(view, order, window=2 * params.batch_size)
            for rows in _chunks(order, params.batch_size):
                batch = np.stack([next(pixels) for _ in rows])
                yield normalise(torch.from_numpy(batch)), labels[rows]

        return batches

    def forward(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels)[0]
        return logits

    def val_logits() -> Tensor:
        parts = [
            forward(normalise(torch.from_numpy(batch)).to(_device(model))).float().cpu()
            for batch in val.pictures.batches(_EVAL_BATCH)
        ]
        return torch.cat(parts)

    def head_mode() -> None:
        _freeze(model, len(model.blocks))
        _set_modes(model, train_norms=False)

    def all_mode() -> None:
        _freeze(model, 0)
        _set_modes(model, train_norms=params.weights == "none")

    n_batches = len(_chunks(np.arange(n_images), params.batch_size))
    return [
        Phase(
            "head",
            params.head_phase,
            [(model.head, 1.0)],
            batches_of(0),
            n_batches,
            forward,
            val_logits,
            val.class_index,
            head_mode,
        ),
        Phase(
            "tail",
            params.tail_phase,
            _tail_modules(model, 0, params.layer_decay),
            batches_of(1),
            n_batches,
            forward,
            val_logits,
            val.class_index,
            all_mode,
        ),
    ]

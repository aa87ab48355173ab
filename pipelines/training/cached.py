"""The frozen trunk, run once: its activations on disk, half precision, memory-mapped.

Most of a network's time goes into blocks that transfer learning does not change. They run once per
picture and view, in ONNX Runtime; head and tail then train on the stored activations (ADR 0003).
Some views may go through the int8 trunk, so that the tail learns on what it will see on the phone.
The head is trained on embeddings, then head and tail on activations.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.atomic import new_folder, storage_errors, write_text
from pipelines.backbones.heads import Classifier
from pipelines.config.train import TrainParams
from pipelines.data.loaders import Pictures
from pipelines.data.workers import n_workers, ordered_map
from pipelines.errors import ConfigError, StorageError
from pipelines.export.onnx_export import ACTIVATIONS_NAME, INPUT_NAME
from pipelines.progress import track
from pipelines.serving.sessions import Precision, make_session
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
from pipelines.training.runtime import Runtime

_LOG = logging.getLogger(__name__)

#: Pictures that go through the trunk together: more gain nothing, and cost memory.
_TRUNK_BATCH = 16
#: Ways in which a head that a tail follows sees each picture. Each is a pass through the tail, and
#: more of them changed no val loss beyond what the order of images does
#: (docs/experiments/training.md).
_HEAD_SLOTS = 3


@dataclass(frozen=True, slots=True)
class Slot:
    """One way in which every picture of a split is stored; view 0 is the plain one."""

    view: int
    precision: Precision


def train_slots(n_views: int, int8_share: float, *, has_plain: bool = True) -> list[Slot]:
    """The slots of the train split: the plain view in each precision used, then random views.

    A share of the random views, in [0, 1], goes through the int8 trunk: the first ones.
    """
    n_int8 = round(n_views * int8_share)
    plain = plain_slots(int8_share) if has_plain else []
    return plain + [Slot(i, "int8" if i <= n_int8 else "fp32") for i in range(1, n_views + 1)]


def plain_slots(int8_share: float) -> list[Slot]:
    """The slots of the val split: the plain view in each precision used."""
    return [Slot(0, "fp32")] * (int8_share < 1) + [Slot(0, "int8")] * (int8_share > 0)


@dataclass(frozen=True, slots=True)
class Activations:
    """Activations of one split at the cut.

    Attributes:
        values: (n_images, n_slots, c, h, w) float16, memory-mapped.
        truth: (n_images, n_slots, ...) of what each shows.
        slots: what each of the second axis is.
    """

    values: NDArray[np.float16]
    truth: NDArray[Any]
    slots: list[Slot]

    def take(self, images: NDArray[np.int64], slots: NDArray[np.int64]) -> Tensor:
        """(n, c, h, w) float32 of n pictures, each in its slot.

        Channels last in memory: torch's convolutions are a fifth to a quarter quicker on it.
        """
        half = torch.from_numpy(self.values[images, slots])
        return half.to(torch.float32, memory_format=torch.channels_last)


def cached_activations(
    split: Split,
    slots: Sequence[Slot],
    trunks: Mapping[Precision, bytes],
    cache_dir: Path,
    *,
    max_bytes: int,
    what: str,
    runtime: Runtime | None = None,
) -> Activations:
    """Activations of a split, from the cache or made now by the ONNX files of the trunk.

    Of what the cache keeps, the oldest go when ``max_bytes`` would be passed.

    Args:
        runtime: whose processes share the work, in one folder that all of them see; None for this
            one alone.

    Raises:
        ConfigError: if this split alone needs more.
        CorruptImageError: if an image changed since `prepare`.
        StorageError: if the disk is full, or a process does not see the folder.
    """
    runtime = runtime or Runtime()
    pictures = split.pictures
    key = _key(pictures, slots, trunks)
    folder = cache_dir / key
    if not runtime.told((folder / "meta.json").is_file):
        sessions = {name: make_session(model, n_workers()) for name, model in trunks.items()}
        shape = _row_shape(pictures, len(slots), sessions)
        n_bytes = int(np.prod(shape)) * 2
        if n_bytes > max_bytes:
            raise ConfigError(
                f"params.yaml: train.max_cache_bytes: the activations of {what} need "
                f"{n_bytes:,} bytes ({shape[0]} images, {shape[1]} slots); at most {max_bytes:,} "
                f"are allowed. Lower train.views, or raise the bound."
            )
        with _file_to_fill(folder, shape, max_bytes - n_bytes, runtime) as values:
            _LOG.info("%s: %d images x %d views through the frozen trunk", what, shape[0], shape[1])
            own = runtime.share(np.arange(shape[0]))
            shared = replace(pictures, entries=[pictures.entries[row] for row in own])
            rows = _rows(shared, slots, sessions, shape[1:])
            for row, activations in zip(own, track(rows, f"{what}: trunk", len(own)), strict=True):
                values[row] = activations
    if runtime.is_primary:
        (folder / "meta.json").touch()
    values = np.load(folder / "values.npy", mmap_mode="r")
    views = [slot.view for slot in slots]
    rows_truth = ordered_map(lambda row: split.truth_in(row, views), range(len(values)), window=8)
    return Activations(values, np.stack(list(rows_truth)), list(slots))


@contextmanager
def _file_to_fill(
    folder: Path, shape: tuple[int, ...], budget_bytes: int, runtime: Runtime
) -> Iterator[NDArray[np.float16]]:
    """One file of activations; it is there, whole, when every process has filled its rows.

    The primary makes its folder, and room for it: the rest of the cache keeps ``budget_bytes``.
    """
    if runtime.is_primary:
        _evict(folder.parent, budget_bytes)
    with new_folder(folder) if runtime.is_primary else storage_errors(folder) as made:
        file = runtime.told(lambda: _empty_file(made, shape))
        if not file.is_file():
            raise StorageError(
                f"rank {runtime.rank} of {runtime.world}: {file} is not there, and rank 0 has just "
                f"made it. All processes need one project folder: mount it on this machine, or "
                f"train by strategy: full."
            )
        values = np.lib.format.open_memmap(file, mode="r+")
        yield values
        values.flush()
        del values
        # The folder takes its name when all rows are there.
        runtime.barrier()
        if made is not None:
            write_text(made / "meta.json", json.dumps({"shape": shape}))
    runtime.barrier()


def _empty_file(folder: Path | None, shape: tuple[int, ...]) -> Path:
    assert folder is not None  # the primary alone makes it
    file = folder / "values.npy"
    np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape).flush()
    # Its bytes are set aside now: where the disk is full, a write into mapped memory ends a process
    # without a word (SIGBUS).
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with file.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)
    return file


def _key(pictures: Pictures, slots: Sequence[Slot], trunks: Mapping[Precision, bytes]) -> str:
    digest = hashlib.sha256(repr((list(slots), pictures.preprocess)).encode())
    # Plain views alone depend on neither the augmentation nor the seed.
    if any(slot.view for slot in slots):
        digest.update(repr((pictures.augment, pictures.seed)).encode())
    for precision in sorted({slot.precision for slot in slots}):
        digest.update(hashlib.sha256(trunks[precision]).digest())
    for entry in pictures.entries:
        digest.update(f"{entry.path}\t{entry.sha256}\n".encode())
    return digest.hexdigest()[:24]


def _row_shape(
    pictures: Pictures, n_slots: int, sessions: Mapping[Precision, ort.InferenceSession]
) -> tuple[int, ...]:
    side = pictures.preprocess.crop_px
    blank = np.zeros((1, side, side, 3), dtype=np.uint8)
    session = next(iter(sessions.values()))
    activations = session.run([ACTIVATIONS_NAME], {INPUT_NAME: blank})[0]
    return (len(pictures.entries), n_slots, *activations.shape[1:])


def _rows(
    pictures: Pictures,
    slots: Sequence[Slot],
    sessions: Mapping[Precision, ort.InferenceSession],
    shape: tuple[int, ...],
) -> Iterator[NDArray[np.float16]]:
    numbers = sorted({slot.view for slot in slots if slot.view})
    place = {0: 0} | {number: i for i, number in enumerate(numbers, start=1)}
    decoded = ordered_map(lambda entry: pictures.views(entry, numbers), pictures.entries, window=8)
    by_precision = {
        name: [i for i, slot in enumerate(slots) if slot.precision == name] for name in sessions
    }
    for views in decoded:
        row = np.empty(shape, dtype=np.float16)
        for name, session in sessions.items():
            wanted = by_precision[name]
            for start in range(0, len(wanted), _TRUNK_BATCH):
                chosen = wanted[start : start + _TRUNK_BATCH]
                pixels = views[[place[slots[i].view] for i in chosen]]
                row[chosen] = session.run([ACTIVATIONS_NAME], {INPUT_NAME: pixels})[0]
        yield row


def _evict(cache_dir: Path, budget_bytes: int) -> None:
    """Remove the least recently used splits until the rest fits the budget."""
    kept = sorted(cache_dir.glob("*/meta.json"), key=lambda path: path.stat().st_mtime)
    sizes = {path: sum(f.stat().st_size for f in path.parent.iterdir()) for path in kept}
    total = sum(sizes.values())
    for path in kept:
        if total <= budget_bytes:
            return
        total -= sizes[path]
        shutil.rmtree(path.parent, ignore_errors=True)


# -- phases on activations ------------------------------------------------------------------------
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
    runtime: Runtime,
) -> list[Phase]:
    """Phases on stored activations of the frozen trunk, of which ``trunks`` are the ONNX files.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``, or if images are to
            be weighted by source and sources cannot help.
    """
    # First of all: what it refuses should not cost the work of the trunk.
    weights = draw_weights(train, params.balance, what)

    def stored(split: Split, slots: Sequence[Slot], name: str) -> Activations:
        return cached_activations(
            split,
            slots,
            trunks,
            cache_dir,
            max_bytes=params.max_cache_bytes,
            what=f"{what}: {name}",
            runtime=runtime,
        )

    # A plain view shows the background that the others are to hide.
    has_plain = params.augment.background == 0
    slots = train_slots(params.views, params.int8_views, has_plain=has_plain)
    shown = _Train(model, params, stored(train, slots, "train"), weights, seed, train, runtime)
    asked = _NO_VAL
    if val is not None:
        asked = _val_of(model, stored(val, plain_slots(params.int8_views), "val"), runtime)
    # A head on maps is shown what the tail makes of the activations, which pooling would lose.
    is_pooled = not model.taps
    return [
        Phase(
            name="head",
            params=params.head_phase,
            modules=[(model.head, 1.0)],
            batches=shown.embeddings if is_pooled else shown.activations,
            n_batches=shown.n_batches,
            forward=model.head.forward if is_pooled else model.tail,
            val_outputs=asked.of_head if is_pooled else asked.of_tail,
            val_truth=asked.truth,
            train_mode=partial(train_from, model, len(model.blocks), train_norms=False),
            soft_targets=shown.soft_targets_of(0),
        ),
        Phase(
            name="tail",
            params=params.tail_phase,
            modules=trained_modules(model, model.cut, params.layer_decay),
            batches=shown.activations,
            n_batches=shown.n_batches,
            forward=model.tail,
            val_outputs=asked.of_tail,
            val_truth=asked.truth,
            train_mode=partial(train_from, model, model.cut, train_norms=params.weights == "none"),
            soft_targets=shown.soft_targets_of(1),
        ),
    ]


class _Train:
    """This process's share of the batches of both phases.

    An image shows its slots in turn, so that each is seen as often.
    """

    def __init__(
        self,
        model: Classifier,
        params: TrainParams,
        stored: Activations,
        weights: NDArray[np.float64] | None,
        seed: int,
        split: Split,
        runtime: Runtime,
    ) -> None:
        self._runtime = runtime
        self._model, self._stored, self._weights, self._seed = model, stored, weights, seed
        self._soft_targets, self._mates = split.soft_targets, split.mates
        self._batch_size = params.batch_size
        self._truth = torch.from_numpy(stored.truth)
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
            self._embedded = _embed_all(self._model, self._stored, self._head_slots, self._runtime)
        for rows in map(self._runtime.share, self._rows(epoch, 0)):
            slots = self._turn(epoch, rows, len(self._head_slots))
            yield self._embedded[rows, slots], self._truth[rows, self._head_slots[slots]]

    def activations(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in map(self._runtime.share, self._rows(epoch, 1)):
            slots = self._turn(epoch, rows, self._n_slots)
            yield self._stored.take(rows, slots), self._truth[rows, slots]

    def soft_targets_of(self, phase: int) -> Callable[[int], Iterator[Tensor]] | None:
        soft = self._soft_targets
        if soft is None:
            return None
        return lambda epoch: (soft[rows] for rows in self._rows(epoch, phase))

    def _rows(self, epoch: int, phase: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng([self._seed, phase, epoch, 2])
        order = epoch_order(self._n_images, generator, self._weights, self._mates)
        return chunks(order, self._batch_size)

    def _turn(self, epoch: int, rows: NDArray[np.int64], n_turns: int) -> NDArray[np.int64]:
        turns: NDArray[np.int64] = (self._first_slot[rows] + epoch) % n_turns
        return turns


@dataclass(frozen=True, slots=True)
class _Val:
    """The val split, each image once in each precision, as each phase asks for it."""

    of_head: Callable[[], Tensor] | None
    of_tail: Callable[[], Tensor] | None
    truth: NDArray[Any]


_NO_VAL = _Val(None, None, np.empty(0, dtype=np.int64))


def _val_of(model: Classifier, stored: Activations, runtime: Runtime) -> _Val:
    every_slot = np.arange(len(stored.slots))
    rows, slots = _all_rows(len(stored.values), every_slot)

    # As of the train split: a tail does not need it.
    @cache
    def features() -> Tensor:
        return _embed_all(model, stored, every_slot, runtime)

    def of_head() -> Tensor:
        outputs: Tensor = model.head(features().flatten(0, 1).to(device_of(model)))
        return outputs

    def of_tail() -> Tensor:
        return runtime.spread(np.arange(len(rows)), answers)

    def answers(chosen: NDArray[np.int64]) -> Tensor:
        parts = [
            model.tail(stored.take(*part).to(device_of(model)))
            for part in _parts(rows[chosen], slots[chosen])
        ]
        return torch.cat(parts)

    return _Val(of_head, of_tail, stored.truth[rows, slots])


def _parts(
    rows: NDArray[np.int64], slots: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for start in range(0, len(rows), EVAL_BATCH):
        yield rows[start : start + EVAL_BATCH], slots[start : start + EVAL_BATCH]


def _all_rows(n_images: int, slots: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """Rows and slots of every image in each of some slots, image by image."""
    return np.repeat(np.arange(n_images), len(slots)), np.tile(slots, n_images)


def _embed_all(
    model: Classifier, activations: Activations, slots: NDArray[np.int64], runtime: Runtime
) -> Tensor:
    """(n_images, n_slots, n_features) through the tail as it stands."""
    was_training = model.training
    model.eval()
    n_images = len(activations.values)
    rows, each_slot = _all_rows(n_images, slots)

    def embeddings(chosen: NDArray[np.int64]) -> Tensor:
        parts = [
            model.embed(activations.take(*part).to(device_of(model))).cpu()
            for part in _parts(rows[chosen], each_slot[chosen])
        ]
        return torch.cat(parts)

    with torch.inference_mode():
        embedded = runtime.spread(np.arange(len(rows)), embeddings)
    model.train(was_training)
    # Out of inference mode, so that a loss on top of them may keep gradients.
    embedded = embedded.clone()
    return embedded.reshape(n_images, len(slots), -1)

"""The frozen trunk, run once: its activations on disk, half precision, memory-mapped.

Most of a network's time goes into blocks that transfer learning does not change. They run once per
picture and view, in ONNX Runtime; head and tail then train on the stored activations (ADR 0003).
Some views may go through the int8 trunk, so that the tail learns on what it will see on the phone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.atomic import new_folder, write_text
from pipelines.data.loaders import Pictures
from pipelines.data.workers import n_workers, ordered_map
from pipelines.errors import ConfigError
from pipelines.export.onnx_export import ACTIVATIONS_NAME, INPUT_NAME
from pipelines.progress import track
from pipelines.serving.sessions import Precision, make_session

_LOG = logging.getLogger(__name__)

#: Pictures that go through the trunk together: more gain nothing, and cost memory.
_TRUNK_BATCH = 16


@dataclass(frozen=True, slots=True)
class Slot:
    """One way in which every picture of a split is stored.

    Attributes:
        view: number of the random view; 0 is the plain one.
        precision: of the trunk that it goes through.
    """

    view: int
    precision: Precision


def train_slots(n_views: int, int8_share: float, *, has_plain: bool = True) -> list[Slot]:
    """The slots of the train split: the plain view in each precision used, then random views.

    Args:
        n_views: random views.
        int8_share: share of them that goes through the int8 trunk, in [0, 1].
        has_plain: false leaves the plain view out.
    """
    n_int8 = round(n_views * int8_share)
    int8: list[Precision] = ["int8"]
    fp32: list[Precision] = ["fp32"]
    precisions = int8 * n_int8 + fp32 * (n_views - n_int8)
    plain = plain_slots(int8_share) if has_plain else []
    return plain + [Slot(number, precision) for number, precision in enumerate(precisions, start=1)]


def plain_slots(int8_share: float) -> list[Slot]:
    """The slots of the val split: the plain view in each precision used.

    Args:
        int8_share: as in `train_slots`.
    """
    return [Slot(0, "fp32")] * (int8_share < 1) + [Slot(0, "int8")] * (int8_share > 0)


@dataclass(frozen=True, slots=True)
class Activations:
    """Activations of one split at the cut.

    Attributes:
        values: (n_images, n_slots, c, h, w) float16, memory-mapped.
        class_index: (n_images,).
        slots: what each of the second axis is.
    """

    values: NDArray[np.float16]
    class_index: NDArray[np.int64]
    slots: list[Slot]

    def take(self, images: NDArray[np.int64], slots: NDArray[np.int64]) -> Tensor:
        """Activations of some pictures.

        Args:
            images: (n,) rows.
            slots: (n,) slot of each.

        Returns:
            (n, c, h, w) float32, channels last in memory: torch's convolutions are a fifth to a
            quarter quicker on it.
        """
        half = torch.from_numpy(self.values[images, slots])
        return half.to(torch.float32, memory_format=torch.channels_last)


def cached_activations(
    pictures: Pictures,
    class_index: NDArray[np.int64],
    slots: Sequence[Slot],
    trunks: Mapping[Precision, bytes],
    cache_dir: Path,
    *,
    max_bytes: int,
    what: str,
) -> Activations:
    """Activations of a split, from the cache or made now.

    Args:
        pictures: the split's images.
        class_index: (n_images,) labels as numbers.
        slots: what to store of each image.
        trunks: ONNX bytes by precision.
        cache_dir: where activations are kept; the oldest go when ``max_bytes`` would be passed.
        max_bytes: of all that is kept there.
        what: for the progress bar, e.g. ``fish_species: train``.

    Raises:
        ConfigError: if this split alone needs more.
        CorruptImageError: if an image changed since `prepare`.
        StorageError: if the disk is full.
    """
    key = _key(pictures, slots, trunks)
    folder = cache_dir / key
    if not (folder / "meta.json").is_file():
        sessions = {name: make_session(model, n_workers()) for name, model in trunks.items()}
        shape = _row_shape(pictures, len(slots), sessions)
        n_bytes = int(np.prod(shape)) * 2
        if n_bytes > max_bytes:
            raise ConfigError(
                f"params.yaml: train.max_cache_bytes: the activations of {what} need "
                f"{n_bytes:,} bytes ({shape[0]} images, {shape[1]} slots); at most {max_bytes:,} "
                f"are allowed. Lower train.views, or raise the bound."
            )
        _evict(cache_dir, max_bytes - n_bytes)
        _LOG.info("%s: %d images x %d views through the frozen trunk", what, shape[0], shape[1])
        with new_folder(folder) as temporary:
            values = np.lib.format.open_memmap(
                temporary / "values.npy", mode="w+", dtype=np.float16, shape=shape
            )
            rows = _rows(pictures, slots, sessions)
            for row, activations in enumerate(track(rows, f"{what}: trunk", shape[0])):
                values[row] = activations
            values.flush()
            del values
            write_text(temporary / "meta.json", json.dumps({"shape": shape}))
    (folder / "meta.json").touch()
    values = np.load(folder / "values.npy", mmap_mode="r")
    return Activations(values, class_index, list(slots))


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
) -> Iterator[NDArray[np.float16]]:
    numbers = sorted({slot.view for slot in slots if slot.view})
    place = {0: 0} | {number: i for i, number in enumerate(numbers, start=1)}
    decoded = ordered_map(lambda entry: pictures.views(entry, numbers), pictures.entries, window=8)
    by_precision = {
        name: [i for i, slot in enumerate(slots) if slot.precision == name] for name in sessions
    }
    for views in decoded:
        row: NDArray[np.float16] | None = None
        for name, session in sessions.items():
            wanted = by_precision[name]
            for start in range(0, len(wanted), _TRUNK_BATCH):
                chosen = wanted[start : start + _TRUNK_BATCH]
                pixels = views[[place[slots[i].view] for i in chosen]]
                activations = session.run([ACTIVATIONS_NAME], {INPUT_NAME: pixels})[0]
                if row is None:
                    row = np.empty((len(slots), *activations.shape[1:]), dtype=np.float16)
                row[chosen] = activations
        if row is not None:
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

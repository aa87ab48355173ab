"""Which pictures calibrate int8: a stratified sample of the train split, through the plain view.

Never val or test, and never an augmented view: ranges must be those of pictures as the app sees
them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.data.loaders import Pictures
from pipelines.data.manifest import Entry

#: Pictures that go through the network together; bounds the calibrator's memory.
_BATCH = 16


def stratified_sample(entries: Sequence[Entry], n_images: int, seed: int) -> list[Entry]:
    """Entries of every label in turn, drawn by a hash of their path.

    Args:
        entries: of the train split.
        n_images: how many are wanted; all, if there are fewer.

    Returns:
        At most ``n_images``, as evenly spread over labels as the data allow, sorted by path.
    """
    by_label: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: (zlib.crc32(f"{seed}/{e.path}".encode()), e.path)):
        by_label.setdefault(entry.label, []).append(entry)
    chosen: list[Entry] = []
    rank = 0
    queues = [by_label[label] for label in sorted(by_label)]
    while len(chosen) < n_images and any(rank < len(queue) for queue in queues):
        chosen += [queue[rank] for queue in queues if rank < len(queue)]
        rank += 1
    return sorted(chosen[:n_images], key=lambda entry: entry.path)


def calibration_batches(pictures: Pictures) -> list[NDArray[np.uint8]]:
    """Plain views, in batches.

    Args:
        pictures: of `stratified_sample`'s entries.

    Returns:
        Arrays (n, crop_px, crop_px, 3) in [0, 255].
    """
    return list(pictures.batches(_BATCH))

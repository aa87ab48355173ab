"""Pixels for training, decoded by a few threads, in a fixed order and with bounded memory.

Which pictures calibrate int8: a stratified sample of the train split, through the plain view.

Never val or test, and never an augmented view: ranges must be those of pictures as the app sees
them.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.view import AugmentParams
from pipelines.data.augment import Views
from pipelines.data.images import open_image
from pipelines.data.manifest import Entry
from pipelines.data.pixel_range import told_if_memory_ends
from pipelines.data.preprocess import Geometry, Preprocess, geometry_of
from pipelines.data.workers import ordered_map


def draw_seed(seed: int, path: str, view: int) -> int:
    """The seed of one view of one image: its own, whatever the order of work.

    Args:
        path: of the image, relative to raw/.
        view: number of the view.

    Returns:
        In [0, 2**32).
    """
    return zlib.crc32(f"{seed}/{path}/{view}".encode())


@dataclass(slots=True)
class Pictures:
    """The images of one split, as pixels.

    Attributes:
        raw_dir: what the entries' paths are relative to.
        entries: rows of the manifest.
        preprocess: the plain view.
        augment: random views; None where only plain ones are asked for.
        seed: of the run.
    """

    raw_dir: Path
    entries: Sequence[Entry]
    preprocess: Preprocess
    augment: AugmentParams | None
    seed: int
    _threads: threading.local = field(default_factory=threading.local, repr=False)

    def plain(self, entry: Entry) -> NDArray[np.uint8]:
        """An image as val, test and the app see it.

        Args:
            entry: which one.

        Returns:
            (crop_px, crop_px, 3), in [0, 255].
        """
        with told_if_memory_ends(entry.path):
            return self.preprocess(self._open(entry))

    def views(
        self, entry: Entry, numbers: Sequence[int], *, plain: bool = True
    ) -> NDArray[np.uint8]:
        """An image's plain view (if asked for) and random ones, decoded once.

        Args:
            entry: which image.
            numbers: of the random views; the same number gives the same view.
            plain: whether the plain view comes first.

        Returns:
            (plain + len(numbers), crop_px, crop_px, 3), in [0, 255].
        """
        image = self._open(entry)
        pixels = [self.preprocess(image)] if plain else []
        if numbers:
            seeds = [draw_seed(self.seed, entry.path, number) for number in numbers]
            source = self.preprocess.visible(image)
            views = self._views_of_this_thread().many(source, seeds)
            pixels += [self.preprocess.finish(view) for view in views]
        return np.stack(pixels)

    def geometry(self, entry: Entry, numbers: Sequence[int]) -> list[Geometry]:
        """Where views of an image show what; it is decoded for its size.

        Args:
            entry: which image.
            numbers: of the views, 0 for the plain one.

        Returns:
            By view, from px of the upright picture to px of the view.
        """
        size, edge = self._open(entry).size, self.preprocess.border_px
        plain = self.preprocess.geometry(size)
        source, seen = self.preprocess.visible_geometry(size)
        seeds = [draw_seed(self.seed, entry.path, number) for number in numbers if number]
        drawn = self._views_of_this_thread().geometry(seen, seeds) if seeds else []
        random = iter(geometry_of(cut=(-edge, -edge)) @ place @ source for place in drawn)
        return [next(random) if number else plain for number in numbers]

    def _open(self, entry: Entry) -> Image.Image:
        reading = self.preprocess.reading
        return open_image(self.raw_dir / entry.path, name=entry.path, reading=reading).rgb

    def _views_of_this_thread(self) -> Views:
        views: Views | None = getattr(self._threads, "views", None)
        if views is None:
            if self.augment is None:
                raise ValueError("these pictures have no augmentation")
            views = Views(self.augment, self.preprocess.inner_px)
            self._threads.views = views
        return views

    def batches(self, batch_size: int) -> Iterator[NDArray[np.uint8]]:
        """Plain views of all entries, in their order.

        Args:
            batch_size: pictures in each batch but the last.

        Yields:
            (n, crop_px, crop_px, 3), in [0, 255].
        """
        batch: list[NDArray[np.uint8]] = []
        for pixels in ordered_map(self.plain, self.entries, window=2 * batch_size):
            batch.append(pixels)
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)


# -- calibration images ---------------------------------------------------------------------------
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

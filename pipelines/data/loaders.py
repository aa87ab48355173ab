"""Pixels for training and calibration, decoded by a few threads, in a fixed order.

Int8 is calibrated with a stratified sample of the train split through the plain view; never val or
test, and never an augmented view: ranges must be those of pictures as the app sees them.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
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
    """The seed of one view of one image, in [0, 2**32): its own, whatever the order of work."""
    return zlib.crc32(f"{seed}/{path}/{view}".encode())


@dataclass(slots=True)
class Pictures:
    """The images of one split, as pixels.

    Attributes:
        raw_dir: what the entries' paths are relative to.
        augment: random views; None where only plain ones are asked for.
    """

    raw_dir: Path
    entries: Sequence[Entry]
    preprocess: Preprocess
    augment: AugmentParams | None
    seed: int
    _threads: threading.local = field(default_factory=threading.local, repr=False)

    def plain(self, entry: Entry) -> NDArray[np.uint8]:
        """An image as val, test and the app see it: (crop_px, crop_px, 3), in [0, 255]."""
        with told_if_memory_ends(entry.path):
            return self.preprocess(self._open(entry))

    def views(
        self, entry: Entry, numbers: Sequence[int], *, plain: bool = True
    ) -> NDArray[np.uint8]:
        """An image's plain view (if asked for) and random ones, decoded once.

        The same number gives the same random view.

        Returns:
            (plain + len(numbers), crop_px, crop_px, 3), in [0, 255].
        """
        image = self._open(entry)
        pixels = [self.preprocess(image)] if plain else []
        if numbers:
            seeds = [draw_seed(self.seed, entry.path, number) for number in numbers]
            source = self.preprocess.visible(image)
            views = self._views_of_this_thread()(source, seeds)
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
        """Plain views of all entries, in their order: (n, crop_px, crop_px, 3), in [0, 255]."""
        batch: list[NDArray[np.uint8]] = []
        for pixels in ordered_map(self.plain, self.entries, window=2 * batch_size):
            batch.append(pixels)
            if len(batch) == batch_size:
                yield np.stack(batch)
                batch = []
        if batch:
            yield np.stack(batch)


# -- what calibrates int8 --------------------------------------------------------------------------
#: Pictures that go through the network together; bounds the calibrator's memory.
_BATCH = 16


def stratified_sample(entries: Sequence[Entry], n_images: int, seed: int) -> list[Entry]:
    """At most so many entries, of every label in turn, drawn by a hash of their path.

    As evenly spread over labels as the data allow, sorted by path.
    """
    by_label: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=lambda e: (zlib.crc32(f"{seed}/{e.path}".encode()), e.path)):
        by_label.setdefault(entry.label, []).append(entry)
    queues = [by_label[label] for label in sorted(by_label)]
    chosen = [entry for turn in zip_longest(*queues) for entry in turn if entry is not None]
    return sorted(chosen[:n_images], key=lambda entry: entry.path)


def calibration_batches(pictures: Pictures) -> list[NDArray[np.uint8]]:
    """Plain views of `stratified_sample`'s entries, in batches as of `Pictures.batches`."""
    return list(pictures.batches(_BATCH))

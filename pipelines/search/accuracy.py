"""What a network of a space is worth on a task, without a training of its own.

`Worth` is a function of a network and of nothing that another leaves behind; it is made of plain
values and opens the supernet where it is first asked, so that it may cross to another process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.backbones.spec import Input, backbone
from pipelines.config.search import SearchParams
from pipelines.config.train import TrainParams
from pipelines.data.loaders import stratified_sample
from pipelines.data.manifest import Entry, class_index_of, content_sha256, in_split
from pipelines.data.workers import ordered_map
from pipelines.paths import Paths
from pipelines.search.cells import key_of
from pipelines.search.objective import own_teacher
from pipelines.search.space import Network, Space
from pipelines.search.supernet import TEMPERATURE, HeadShape, Lesson, Supernet, by_teacher, warm_up
from pipelines.training.batches import Split
from pipelines.training.job import Data, normalise, open_split
from pipelines.training.teachers import Teacher, read_teachers, taught

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LOG = logging.getLogger(__name__)
#: Pictures that are asked about together.
_BATCH = 32


def fields_of(instance: DataclassInstance) -> dict[str, object]:
    """What a dataclass was made of, without what it has found out since."""
    return {each.name: getattr(instance, each.name) for each in fields(instance)}


@dataclass(frozen=True)
class Worth:
    """A task's val accuracy of any network of a space, as a function.

    Attributes:
        task: slug.
        train: its section; backbone, width and side are the network's.
        search: its section.
        seed: of the run.
        data: the prepared set.
        paths: of the project.
    """

    task: str
    train: TrainParams
    search: SearchParams
    seed: int
    data: Data
    paths: Paths

    def __getstate__(self) -> dict[str, object]:
        """Its fields: whoever takes it over reads the supernet and the pictures anew."""
        return fields_of(self)

    def __call__(self, network: Network) -> float:
        """Share of the val images that a network of the supernet answers right, in [0, 1].

        Raises:
            CorruptImageError: if an image changed since `prepare`.
            StorageError: if the disk is full.
            WeightsError: if the base's weights cannot be had.
        """
        norms = list(self._batches("norms", network.image_px))
        model = self.supernet.network(network.architecture, norms)
        with torch.inference_mode():
            found = [
                model(batch)[0].argmax(dim=1) for batch in self._batches("val", network.image_px)
            ]
        n_right = int((torch.cat(found) == self._val_index).sum())
        return n_right / len(self._val_index)

    @property
    def space(self) -> Space:
        """Of its networks."""
        return Space.of(self.search.space)

    @cached_property
    def key(self) -> str:
        """A hash of all that its answers depend on, but for the code."""
        told = self.search.model_dump(mode="json", include={"space", "warm_up"})
        read = self.search.model_dump(mode="json", include={"val_images", "norm_images"})
        return key_of(
            [
                told,
                read,
                self.train.model_dump(mode="json"),
                self.seed,
                content_sha256(self.data.entries),
                repr(self.data.summary.reading),
                self.data.summary.labels,
                [teacher.sha256 for teacher in self._teachers],
            ]
        )

    @cached_property
    def supernet(self) -> Supernet:
        """Trained, or read where that has been done."""
        head = HeadShape(
            len(self.data.summary.labels), self.train.head.hidden, self.train.head.dropout
        )
        base = self.space.base
        supernet = Supernet.begin(base, head, self.paths.weights_dir, self.seed)
        warm_up(
            supernet,
            self.space,
            self._lesson,
            self.search.warm_up,
            label_smoothing=self.train.label_smoothing,
            seed=self.seed,
            folder=self.paths.task(self.task).supernet_dir,
            key=self.key,
            what=f"{self.task}: supernet",
        )
        return supernet

    # -- pixels -----------------------------------------------------------------------------------
    def _split(self, entries: Sequence[Entry], image_px: int) -> Split:
        asked = {"backbone": self.space.base.base, "width": 1.0, "image_px": image_px}
        params = TrainParams.model_validate(self.train.model_dump() | asked)
        made = self.data.summary
        return open_split(
            entries, made.labels, params, self.seed, self.data.files, made.reading, made.kind
        )

    @cached_property
    def _input(self) -> Input:
        return backbone(self.space.base.base).input

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        return normalise(torch.from_numpy(pixels), self._input.mean, self._input.std)

    def _batches(self, what: Literal["norms", "val"], image_px: int) -> Iterator[Tensor]:
        """Plain views, decoded once a side."""
        if (what, image_px) not in self._kept:
            entries = self._norm_entries if what == "norms" else self._val_entries
            shown = self._split(entries, image_px).pictures
            self._kept[what, image_px] = list(shown.batches(_BATCH))
        return map(self._normalised, self._kept[what, image_px])

    @cached_property
    def _kept(self) -> dict[tuple[str, int], list[NDArray[np.uint8]]]:
        return {}

    @cached_property
    def _norm_entries(self) -> list[Entry]:
        train = in_split(self.data.entries, "train")
        return stratified_sample(train, self.search.norm_images, self.seed)

    @cached_property
    def _val_entries(self) -> list[Entry]:
        val = in_split(self.data.entries, "val")
        most = self.search.val_images or len(val)
        return stratified_sample(val, most, self.seed)

    @cached_property
    def _val_index(self) -> Tensor:
        return self._class_index(self._val_entries)

    # -- lessons ----------------------------------------------------------------------------------
    def _lesson(self, step: int, image_px: int) -> Lesson:
        """Random views of a step's images; epochs follow on each other, each in its order."""
        entries, size = self._train_entries, self.search.warm_up.batch_size
        n_batches = max(1, len(entries) // size)
        epoch, batch = divmod(step, n_batches)
        order = np.random.default_rng([self.seed, epoch, 8]).permutation(len(entries))
        rows = order[batch * size : (batch + 1) * size]
        pictures = self._split(entries, image_px).pictures
        views = ordered_map(
            lambda row: pictures.views(entries[int(row)], [epoch + 1], plain=False)[0],
            rows,
            window=size,
        )
        soft = self._soft_targets
        return Lesson(
            self._normalised(np.stack(list(views))),
            self._train_index[rows],
            None if soft is None else soft[rows],
        )

    @cached_property
    def _train_entries(self) -> list[Entry]:
        return in_split(self.data.entries, "train")

    @cached_property
    def _train_index(self) -> Tensor:
        return self._class_index(self._train_entries)

    def _class_index(self, entries: Sequence[Entry]) -> Tensor:
        return torch.from_numpy(class_index_of(entries, self.data.summary.labels))

    @cached_property
    def _teachers(self) -> list[Teacher]:
        """The task's own trained model, if it is asked for and there."""
        if not self.search.warm_up.teacher_weight:
            return []
        own = own_teacher(self.data)
        if own is None:
            _LOG.warning(
                "%s: has no trained model yet, so that the supernet learns from labels alone; "
                "`dvc repro train@%s` makes one",
                *(self.task, self.task),
            )
            return []
        asked = by_teacher(self.search.warm_up.teacher_weight, own)
        data_sha256 = content_sha256(self.data.entries)
        return read_teachers(asked, self.data.summary.labels, data_sha256, self.data.files.root)

    @cached_property
    def _soft_targets(self) -> Tensor | None:
        if not self._teachers:
            return None
        split = self._split(self._train_entries, max(self.search.space.image_px))
        return taught(
            split,
            self.data.summary.labels,
            self._teachers,
            TEMPERATURE,
            self.paths.teachers_dir,
            normalise,
        ).soft_targets

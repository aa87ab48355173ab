"""One training by either strategy, with a stopwatch: what `training.py` and `folds.py` compare."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.backbones.heads import Classifier
from pipelines.backbones.spec import backbone
from pipelines.config.params import load_params
from pipelines.config.train import TrainParams
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import Entry
from pipelines.data.manifest import Split as SplitName
from pipelines.metrics.classification import accuracy
from pipelines.paths import Paths
from pipelines.training import job as jobs
from pipelines.training.batches import Split
from pipelines.training.fit import EpochLog
from pipelines.training.full import outputs_of
from pipelines.training.job import frozen_trunks, normalise
from pipelines.training.runtime import Runtime
from pipelines.training.start import start_model


@dataclass(slots=True)
class _Held(Pictures):
    """Pictures of which each view is made once, and there are few of each image."""

    n_views: int = 1
    kept: dict[tuple[str, int], NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def plain(self, entry: Entry) -> NDArray[np.uint8]:
        if (entry.path, 0) not in self.kept:
            self.kept[entry.path, 0] = Pictures.plain(self, entry)
        return self.kept[entry.path, 0]

    def views(
        self, entry: Entry, numbers: Sequence[int], *, plain: bool = True
    ) -> NDArray[np.uint8]:
        first = [self.plain(entry)] if plain else []
        return np.stack([*first, *map(self._view, repeat(entry), numbers)])

    def _view(self, entry: Entry, number: int) -> NDArray[np.uint8]:
        key = entry.path, 1 + (number - 1) % self.n_views
        if key not in self.kept:
            (self.kept[key],) = Pictures.views(self, entry, [key[1]], plain=False)
        return self.kept[key]


@dataclass(frozen=True, slots=True)
class HeldData(jobs.Data):
    """A data set in memory: ``train.views`` random views of each image, whatever a job's seed.

    Trainings that share it differ neither in size nor in augmentation.

    Attributes:
        seed: of the views.
    """

    seed: int = 0
    kept: dict[tuple[str, int], NDArray[np.uint8]] = field(default_factory=dict, repr=False)

    def split(self, name: SplitName, job: jobs.Job) -> Split:
        """The images of a split, whose views are held."""
        split = jobs.Data.split(self, name, job)
        own = split.pictures
        held = _Held(
            own.raw_dir,
            own.entries,
            own.preprocess,
            own.augment,
            self.seed,
            n_views=job.params.views,
            kept=self.kept,
        )
        return replace(split, pictures=held)


class Stopwatch:
    """Time of a clock since it was made, without its pauses."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._start = clock()

    @property
    def elapsed_s(self) -> float:
        """Time so far."""
        return self._clock() - self._start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here does not count."""
        began = self._clock()
        try:
            yield
        finally:
            self._start += self._clock() - began


@dataclass(frozen=True, slots=True)
class Setting:
    """What all trainings of a comparison share.

    Attributes:
        job: the task's own.
        data: its images; the test split is answered.
        paths: whose weights and exported trunks are used.
        runtime: where it trains.
        is_warm: whether stored activations are used, too.
        clock: s; of the wall, or of the processor where other work runs beside it.
    """

    job: jobs.Job
    data: jobs.Data
    paths: Paths
    runtime: Runtime
    is_warm: bool = False
    clock: Callable[[], float] = time.perf_counter

    def changed(self, **params: object) -> Setting:
        """The same with other params."""
        chosen = self.job.params.model_copy(update=params)
        return replace(self, job=replace(self.job, params=chosen))


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch: training time up to its end, and the test accuracy of its weights."""

    number: int
    phase: str
    elapsed_s: float
    accuracy: float


@dataclass(slots=True)
class Trained:
    """A training, and what it took.

    Attributes:
        strategy: ``cached`` or ``full``.
        export_s: of the frozen trunk, not in the other times; 0 if it lay in the cache.
        before_s: until the first epoch: initial weights, int8 trunk, pass through the trunk.
        elapsed_s: of all.
        answers: (n,) of the float model on the test split: of the weights that the val split chose,
            of the refit where params ask for one, or of the last epoch where time ran out.
        accuracy: of these answers.
        is_stopped: whether its time ran out.
        n_epochs: that were finished.
        epochs: in their order, where they were measured.
    """

    strategy: str
    export_s: float = 0.0
    before_s: float = 0.0
    elapsed_s: float = 0.0
    answers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    accuracy: float = 0.0
    is_stopped: bool = False
    n_epochs: int = 0
    epochs: list[Epoch] = field(default_factory=list)

    def first_within(self, target: float) -> float | None:
        """Time to the first epoch, or to the end, with a test accuracy of at least ``target``."""
        for epoch in self.epochs:
            if epoch.accuracy >= target:
                return epoch.elapsed_s
        return self.elapsed_s if self.accuracy >= target else None


class _Ended(Exception):
    """Nothing is to be learned from training on."""


def read_setting(paths: Paths, task: str, runtime: Runtime, *, is_warm: bool = False) -> Setting:
    """The task's params and images, as the stage reads them."""
    job = jobs.Job.of(load_params(paths.params), task)
    return Setting(job, jobs.Data.read(paths.task(task)), paths, runtime, is_warm)


class _Timed(jobs.Observer):
    """Notes when the first epoch begins and each ends, and ends a training whose time is up."""

    def __init__(
        self,
        result: Trained,
        watch: Stopwatch,
        params: TrainParams,
        test: Split | None,
        limit_s: float,
    ):
        self._params = params
        self._result, self._watch, self._test, self._limit_s = result, watch, test, limit_s

    def begun(self, key: str, model: Classifier) -> None:
        self.model = model
        self._result.before_s = self._watch.elapsed_s

    def epoch(self, log: EpochLog, *, is_refit: bool) -> None:
        if is_refit:
            return
        result, watch = self._result, self._watch
        result.n_epochs += 1
        if self._test is not None:
            with watch.paused():
                measured = accuracy(
                    self._test.truth, answers_of(self.model, self._params, self._test)
                )
            result.epochs.append(Epoch(log.epoch, log.phase, watch.elapsed_s, measured))
        if watch.elapsed_s > self._limit_s:
            result.is_stopped = True
            raise _Ended


def train(
    setting: Setting,
    strategy: str,
    *,
    limit_s: float = float("inf"),
    is_measured: bool = True,
) -> Trained:
    """Train once; end after the epoch in which ``limit_s`` passed."""
    setting = setting.changed(strategy=strategy)
    test = setting.data.split("test", setting.job)
    result = Trained(strategy)
    if strategy == "cached":
        result.export_s = export_trunk(setting)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Paths(Path(folder))
        share_caches(setting, scratch)
        watch = Stopwatch(setting.clock)
        timed = _Timed(result, watch, setting.job.params, test if is_measured else None, limit_s)
        with contextlib.suppress(_Ended):
            done = jobs.train(
                setting.job,
                setting.data,
                paths=scratch,
                runtime=setting.runtime,
                observer=timed,
            )
            timed.model = done.model
        result.elapsed_s = watch.elapsed_s
        result.answers = answers_of(timed.model, setting.job.params, test)
        result.accuracy = accuracy(test.truth, result.answers)
    return result


def share_caches(setting: Setting, scratch: Paths) -> None:
    """Let a scratch root see weights and exported trunks, and with --warm activations."""
    shared = {
        scratch.weights_dir: setting.paths.weights_dir,
        scratch.trunks_dir: setting.paths.trunks_dir,
    }
    if setting.is_warm:
        shared[scratch.activations_dir] = setting.paths.activations_dir
    for link, target in shared.items():
        target.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target, target_is_directory=True)


def export_trunk(setting: Setting) -> float:
    """Time to export the frozen trunk into the project's cache; 0 if it is there."""
    job, paths = setting.job, setting.paths
    params = job.params.model_copy(update={"int8_views": 0.0})
    model, _ = start_model(params, len(setting.data.summary.labels), job.seed, paths)
    kept = set(paths.trunks_dir.glob("*"))
    watch = Stopwatch(setting.clock)
    frozen_trunks(model, params, setting.data.split("train", job).pictures, job.seed, paths)
    return watch.elapsed_s if set(paths.trunks_dir.glob("*")) - kept else 0.0


def answers_of(model: Classifier, params: TrainParams, split: Split) -> NDArray[np.int64]:
    """Answers of a float model of these params; the model is left in inference mode."""
    expected = backbone(params.backbone, params.width).input
    normalised = partial(normalise, mean=expected.mean, std=expected.std)
    model.eval()
    with torch.inference_mode():
        answers: NDArray[np.int64] = outputs_of(model, split, normalised).argmax(dim=1).numpy()
    return answers

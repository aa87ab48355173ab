"""One training by either strategy, with a stopwatch: what `training.py` and `folds.py` compare."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.backbones.heads import Classifier
from pipelines.config.params import load_params
from pipelines.config.train import TrainParams
from pipelines.data.manifest import SPLITS, Entry, in_split, read_manifest
from pipelines.data.manifest import Split as SplitName
from pipelines.data.prepared import read_summary
from pipelines.metrics.classification import accuracy
from pipelines.paths import Paths
from pipelines.training.assembly import frozen_trunks, normalise, open_split, phases_of
from pipelines.training.batches import Split
from pipelines.training.fit import EpochLog, Phase, fit
from pipelines.training.full import full_phases
from pipelines.training.refit import refit
from pipelines.training.start import start_model, training_device

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor]]]


class Stopwatch:
    """Wall time since it was made, without its pauses."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Time so far."""
        return time.perf_counter() - self._start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time in here does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._start += time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Setting:
    """What all trainings of a comparison share."""

    task: str
    params: TrainParams
    seed: int
    paths: Paths
    labels: tuple[str, ...]
    splits: Mapping[SplitName, Split]
    is_warm: bool


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


def read_setting(paths: Paths, task: str, is_warm: bool) -> Setting:
    """The task's params and splits, as the stage reads them."""
    return setting_of(paths, task, read_manifest(paths.task(task).manifest), is_warm)


def setting_of(paths: Paths, task: str, entries: Sequence[Entry], is_warm: bool) -> Setting:
    """The same, of images whose splits are given."""
    params = load_params(paths.params)
    chosen = params.task(task).train
    files = paths.task(task)
    summary = read_summary(files.prepare_summary)
    labels = summary.labels
    splits = {
        name: open_split(
            in_split(entries, name), labels, chosen, params.seed, files, summary.reading
        )
        for name in SPLITS
    }
    return Setting(task, chosen, params.seed, paths, labels, splits, is_warm)


def train(
    setting: Setting,
    strategy: str,
    *,
    limit_s: float = float("inf"),
    is_measured: bool = True,
) -> Trained:
    """Train once; end early after ``limit_s``."""
    params = setting.params.model_copy(update={"strategy": strategy})
    result = Trained(strategy)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Paths(Path(folder))
        share_caches(setting, scratch)
        watch = Stopwatch()
        model, _ = start_model(params, len(setting.labels), setting.seed, setting.paths)
        model.to(training_device())
        if strategy == "cached":
            with watch.paused():
                result.export_s = export_trunk(setting, model)
        splits = setting.splits
        phases = phases_of(
            setting.task,
            model,
            params,
            splits["train"],
            splits["val"],
            setting.seed,
            scratch,
        )
        result.before_s = watch.elapsed_s

        def end_if_due() -> None:
            result.is_stopped = watch.elapsed_s > limit_s
            if result.is_stopped:
                raise _Ended

        def on_epoch(log: EpochLog) -> None:
            result.n_epochs += 1
            if is_measured:
                with watch.paused():
                    measured = test_accuracy(setting, test_answers(setting, model))
                result.epochs.append(Epoch(log.epoch, log.phase, watch.elapsed_s, measured))

        with contextlib.suppress(_Ended):
            fit(
                model,
                [replace(phase, batches=checked(phase, end_if_due)) for phase in phases],
                params,
                train_class_index=splits["train"].class_index,
                n_classes=len(setting.labels),
                seed=setting.seed,
                checkpoint_dir=scratch.task(setting.task).checkpoint_dir,
                key="benchmark",
                on_epoch=on_epoch,
                what=f"{setting.task} {strategy}",
            )
        if params.refit and not result.is_stopped:
            model = refit(
                setting.task,
                params,
                len(setting.labels),
                splits["train"],
                splits["val"],
                setting.seed,
                scratch,
                checkpoint_dir=scratch.task(setting.task).refit_checkpoint_dir,
                key="benchmark",
                on_epoch=lambda log: None,
            )
        result.elapsed_s = watch.elapsed_s
        result.answers = test_answers(setting, model)
        result.accuracy = test_accuracy(setting, result.answers)
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


def export_trunk(setting: Setting, model: Classifier) -> float:
    """Time to export the frozen trunk into the project's cache; 0 if it is there."""
    paths = setting.paths
    kept = set(paths.trunks_dir.iterdir())
    start = time.perf_counter()
    params = setting.params.model_copy(update={"int8_views": 0.0})
    frozen_trunks(model, params, setting.splits["train"].pictures, setting.seed, paths)
    elapsed_s = time.perf_counter() - start
    return elapsed_s if set(paths.trunks_dir.iterdir()) - kept else 0.0


def checked(phase: Phase, end_if_due: Callable[[], None]) -> Batches:
    """A phase's batches, with a look at the watch before and after each."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        end_if_due()
        for batch in phase.batches(epoch):
            yield batch
            end_if_due()

    return batches


def test_accuracy(setting: Setting, answers: NDArray[np.int64]) -> float:
    """Share of the test split that is answered rightly."""
    return accuracy(setting.splits["test"].class_index, answers)


def test_answers(setting: Setting, model: Classifier) -> NDArray[np.int64]:
    """Answers of the float model on the test split; the model is left in inference mode."""
    test = setting.splits["test"]
    # The logits of the ordinary loop's val split are those of whatever split it is given.
    phases = full_phases(
        model, setting.params, test, test, normalise, seed=setting.seed, what="timed"
    )
    model.eval()
    with torch.inference_mode():
        logits = phases[0].val_logits
        assert logits is not None  # there is a split to answer
        answers: NDArray[np.int64] = logits().argmax(dim=1).numpy()
    return answers

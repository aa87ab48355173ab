"""prepared/ and raw/ -> models/<task>/float/, history.csv and figures; MLflow watches."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.backbones.heads import Classifier
from pipelines.config.train import TrainParams
from pipelines.data.workers import n_workers
from pipelines.kinds.figures import KINDS
from pipelines.paths import Paths, RecipePaths, TaskPaths
from pipelines.plots.figures import training_curves
from pipelines.tracking import runs
from pipelines.training.batches import Split
from pipelines.training.checkpoints import drop_checkpoint
from pipelines.training.fit import EpochLog, history_csv
from pipelines.training.job import Data, Job, Observer, TrainResult, train
from pipelines.training.runtime import Runtime, this_process

_LOG = logging.getLogger(__name__)


def run(
    task: str,
    domain: str,
    params: TrainParams,
    seed: int,
    paths: Paths,
    runtime: Runtime | None = None,
    *,
    recipe: RecipePaths | None = None,
) -> None:
    """Train the float model of a task.

    Args:
        params: the task's ``train`` section.
        runtime: which process this is; by default as torchrun says.
        recipe: where what a recipe makes goes; None for the task's own model.

    Raises:
        MissingDataError: if `prepare` has not run.
        DataError: if a label has no image to train on.
        ConfigError: if the backbone or the optimiser is unknown, or the cache bound too small.
        WeightsError: if pretrained weights cannot be had.
        StorageError: if the disk is full.
        RanksError: if processes disagree in what they train on, or one is gone.
    """
    runtime = runtime or this_process(n_workers())
    files = recipe or paths.task(task)
    job = Job(task, domain, params, seed)
    with runtime.together(task):
        _train(job, paths, runtime, files, recipe)


def _train(
    job: Job, paths: Paths, runtime: Runtime, files: TaskPaths, recipe: RecipePaths | None
) -> None:
    # What is missing is missing for all: the primary says it.
    with runtime.primary_first():
        data = Data.read(files)
    begin = partial(
        train,
        job,
        data,
        files.float_dir,
        paths=paths,
        runtime=runtime,
        checkpoint_dir=files.checkpoint_dir,
    )
    if not runtime.is_primary:
        begin()
        return
    with ExitStack() as stack:
        tracked = _Tracked(job, paths, stack, recipe.recipe if recipe else None)
        result = begin(observer=tracked, keep_checkpoint=True)
        _write(files, result, data.split("val", job))
        tracked.done(result, files)
        drop_checkpoint(files.checkpoint_dir)
    reached = ", ".join(f"{name} {value:.3f}" for name, value in result.meta.val.items())
    _LOG.info("%s: %s", job.task, reached)


class _Tracked(Observer):
    """Tells MLflow of a training; the run ends with the stack, well or not."""

    def __init__(self, job: Job, paths: Paths, stack: ExitStack, recipe: str | None) -> None:
        self._job, self._paths, self._stack, self._recipe = job, paths, stack, recipe

    def begun(self, key: str, model: Classifier) -> None:
        job = self._job
        parts = (job.params.backbone, job.params.strategy, self._recipe)
        name = "-".join(part for part in parts if part)
        self._run = self._stack.enter_context(
            runs.start(self._paths, job.task, job.domain, name=name, training_key=key)
        )
        self._run.params({"seed": job.seed, **job.params.model_dump(mode="json")})

    def epoch(self, log: EpochLog, *, is_refit: bool) -> None:
        self._run.epoch(
            log.epoch, {"refit": {"train_loss": log.train_loss}} if is_refit else log.row()
        )

    def done(self, result: TrainResult, files: TaskPaths) -> None:
        """Tie the run to what was written."""
        assert result.weights_sha256 is not None  # the primary wrote them
        self._run.tags(
            runs.training_tags(
                self._paths,
                self._job.task,
                self._job.domain,
                weights_sha256=result.weights_sha256,
                data_sha256=result.meta.data_sha256,
                params_sha256=result.meta.params_sha256,
                data_source=result.meta.data_source,
            )
        )
        self._run.artifact(files.training_figures_dir, "figures")


def _write(files: TaskPaths, result: TrainResult, val: Split) -> None:
    """history.csv and the figures."""
    with new_folder(files.training_figures_dir) as folder:
        for name, png in _figures(result, val).items():
            write_bytes(folder / name, png)
    write_text(files.history, history_csv(result.history))


def _figures(result: TrainResult, val: Split) -> dict[str, bytes]:
    draw = KINDS[result.meta.kind]
    return {
        "curves.png": training_curves([log.row() for log in result.history]),
        **draw(result.val_outputs, val.truth, val.pictures, result.meta.labels),
    }

"""What MLflow is told of a training, of its test and of its release.

MLflow is a witness, not a wire: nothing in the pipeline reads from it, and with
``FIELDLENS_TRACKING=off`` the results are the same bytes. A store that does not answer costs one
warning line, and then nothing more. One experiment a task, one run a training, one registered
model a task. Called by `train`, `evaluate`, `gate` and `doctor`; MLflow itself is behind
`mlflow_store`.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines.paths import Paths
from pipelines.tracking.lineage import RECORDING_TAG, TRAINING_KEY_TAG, WEIGHTS_TAG, training_tags
from pipelines.tracking.mlflow_store import Tracker, champion_version, register, set_champion
from pipelines.tracking.runs import Run

__all__ = [
    "Run",
    "Tracker",
    "champion_version",
    "find_or_record",
    "find_run",
    "log_test",
    "record_training",
    "release",
    "start",
    "training_tags",
]


@contextmanager
def start(paths: Paths, task: str, domain: str, *, name: str, training_key: str) -> Iterator[Run]:
    """A run for the length of a training: FINISHED when the block ends well, FAILED if it raises.

    A killed training leaves a run that is not FINISHED; the next one with the same key goes on
    with it, so that one training stays one run.

    Args:
        name: backbone and strategy, e.g. ``mobilenet_v2-cached``.
        training_key: hash of all that the training depends on.

    Yields:
        The run. Its calls never raise because of MLflow.
    """
    tracker = Tracker(paths)
    found = tracker.newest_run(task, TRAINING_KEY_TAG, training_key, unfinished=True)
    if found is not None:
        run = Run(tracker, found.info.run_id, name, is_new=False)
        tracker.call(lambda client: client.update_run(run.run_id, status="RUNNING"))
    else:
        tags = {"task": task, "domain": domain, TRAINING_KEY_TAG: training_key}
        run = Run(tracker, tracker.new_run(task, name, tags), name, is_new=True)
    try:
        yield run
    except BaseException as err:
        run.close("FAILED" if isinstance(err, Exception) else "KILLED")
        raise
    run.close("FINISHED")


def find_run(
    paths: Paths, task: str, weights_sha256: str, *, tracker: Tracker | None = None
) -> Run | None:
    """The newest run that made these weights; None if there is none, or no tracking.

    Args:
        weights_sha256: of the float weights.
        tracker: the line to the store, if there is one already.
    """
    tracker = tracker or Tracker(paths)
    found = tracker.newest_run(task, WEIGHTS_TAG, weights_sha256)
    if found is None:
        return None
    return Run(tracker, found.info.run_id, found.info.run_name, is_new=False)


def find_or_record(
    paths: Paths,
    task: str,
    weights_sha256: str,
    *,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
) -> Run:
    """The run that made these weights, written after the fact if there is none.

    Args:
        weights_sha256: of the float weights.
        name: see `record_training`.
        params: see `record_training`.
        tags: see `record_training`.
    """
    tracker = Tracker(paths)
    found = find_run(paths, task, weights_sha256, tracker=tracker)
    if found is not None:
        return found
    return record_training(paths, task, name=name, params=params, tags=tags, tracker=tracker)


def record_training(
    paths: Paths,
    task: str,
    *,
    name: str,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    tracker: Tracker | None = None,
) -> Run:
    """A run written after the fact, where DVC's run cache gave the weights without a training.

    Args:
        paths: the project; history.csv and the training's figures are read from it.
        name: backbone and strategy, e.g. ``mobilenet_v2-cached``.
        params: what the training was asked to do.
        tags: see `training_tags`.
        tracker: the line to the store, if there is one already.
    """
    tracker = tracker or Tracker(paths)
    files = paths.task(task)
    of = tags.get(WEIGHTS_TAG, "")
    # One that was killed here is gone on with.
    begun = tracker.newest_run(task, RECORDING_TAG, of, unfinished=True)
    if begun is not None:
        run = Run(tracker, begun.info.run_id, name, is_new=False)
    else:
        first = {"fieldlens.recorded_from": files.history.name, RECORDING_TAG: of}
        run = Run(tracker, tracker.new_run(task, name, first), name, is_new=True)
    run.params(params)
    if files.history.is_file():
        with files.history.open(encoding="utf-8", newline="") as stream:
            for step, row in enumerate(csv.DictReader(stream), start=1):
                run.epoch(step, {key: _number(cell) for key, cell in row.items()})
    if files.training_figures_dir.is_dir():
        run.artifact(files.training_figures_dir, "figures")
    # Last: by them it is found, and then nothing is added.
    run.tags(tags)
    run.close("FINISHED")
    return run


def _number(cell: str) -> float | str:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return cell


def log_test(
    run: Run,
    metrics: Mapping[str, object],
    figures: Mapping[str, bytes],
    bundle_dir: Path,
    description: str,
) -> None:
    """Add what `evaluate` found to the run of the training.

    Args:
        run: as `find_run` or `record_training` gave it.
        metrics: of the test split; nested mappings become dotted names below ``test``.
        figures: PNG bytes by file name.
        bundle_dir: the finished bundle, kept whole.
        description: Markdown, for the run's page.
    """
    with run.reopened():
        run.epoch(0, {"test": metrics})
        for name, png in figures.items():
            run.figure(f"test_{name}", png)
        run.describe(description)
        run.artifact(bundle_dir)


def release(
    paths: Paths,
    task: str,
    *,
    weights_sha256: str,
    onnx_path: Path,
    bundle_path: Path,
    tags: Mapping[str, str],
    description: str,
) -> str | None:
    """Register a bundle and point the alias ``champion`` at it.

    Args:
        task: slug; the registered model's name.
        weights_sha256: of the float weights, to find the run.
        onnx_path: the served ONNX file.
        bundle_path: bundle.json, kept beside the model.
        tags: of the version.
        description: of the version, Markdown.

    Returns:
        The version, e.g. ``3``; None where tracking is off or has failed.
    """
    tracker = Tracker(paths)
    run = find_run(paths, task, weights_sha256, tracker=tracker)
    version = register(
        tracker,
        task,
        run_id=None if run is None else run.run_id,
        onnx_path=onnx_path,
        bundle_path=bundle_path,
        tags=tags,
        description=description,
    )
    if version is not None:
        set_champion(tracker, task, version)
    return version if tracker.is_on else None

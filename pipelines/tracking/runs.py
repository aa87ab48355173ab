"""What MLflow is told of a training, of its test and of its release; told again, it adds nothing.

MLflow is a witness, not a wire: nothing in the pipeline reads from it, and with
``FIELDLENS_TRACKING=off`` the results are the same bytes. A store that does not answer costs one
warning line, and then nothing more. One experiment a task, one run a training, one registered
model a task. Called by `train`, `evaluate`, `gate` and `doctor`; MLflow itself is behind
`mlflow_store`.
"""

from __future__ import annotations

import csv
import hashlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelines.paths import Paths
from pipelines.tracking.mlflow_store import Kind, Tracker, champion_version, register

#: What callers of this module need of the other one.
__all__ = ["Tracker", "champion_version"]

#: Tags by which later calls find a run again.
_WEIGHTS_TAG = "fieldlens.weights_sha256"
_TRAINING_KEY_TAG = "fieldlens.training_key"
#: Of a run that is written after the fact, until it is whole: whose weights it will tell of.
_RECORDING_TAG = "fieldlens.recording_of"
#: Of a board, and of one of its cells below it.
_BOARD_TAG = "fieldlens.board_key"
_CELL_TAG = "fieldlens.cell_key"
#: By which MLflow nests runs.
_PARENT_TAG = "mlflow.parentRunId"
#: What MLflow shows as a run's description, and the hash of what we wrote there.
_DESCRIPTION_TAG = "mlflow.note.content"
_OWN_DESCRIPTION_TAG = "fieldlens.description_sha256"
#: MLflow takes at most so many characters of a parameter's value.
_MAX_VALUE = 500


class _Said(NamedTuple):
    """One value of a metric, as MLflow keeps it."""

    step: int
    value: float
    time_ms: int


class Run:
    """One training, as MLflow sees it; where tracking is off every call does nothing."""

    def __init__(self, tracker: Tracker, run_id: str | None, name: str, *, is_new: bool) -> None:
        """Take over the run with MLflow's ``run_id``, or none at all where that is None."""
        self.run_id = run_id
        self._is_new = is_new
        #: What the run has been told by metric; of a run that was there before.
        self._said: dict[str, list[_Said]] = {}
        self.tracker = tracker
        self._name = name

    def _do(self, action: Callable[[Any], object]) -> None:
        if self.run_id is not None:
            self.tracker.call(action)

    def _log(self, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
        if self.run_id is not None:
            self.tracker.log(self.run_id, kind, rows)

    def params(self, values: Mapping[str, object]) -> None:
        """Record what was asked for; here and below, nested mappings become dotted names."""
        self._log("params", [(key, str(v)[:_MAX_VALUE]) for key, v in _flatten(values).items()])

    def epoch(self, step: int, metrics: Mapping[str, object]) -> None:
        """Record the metrics of one epoch, counted through all phases; numbers alone are kept.

        A training that was killed between this and its checkpoint says the epoch once more; what
        the run has been told already is not added again.
        """
        now_ms = int(time.time() * 1000)
        numbers = {key: v for key, v in _flatten(metrics).items() if isinstance(v, int | float)}
        self._remember(numbers)
        rows = []
        for key, value in numbers.items():
            said = self._said.get(key, [])
            if (step, value) in [(each.step, each.value) for each in said]:
                continue
            # MLflow shows the value of the latest time, and a clock may have been put back.
            latest_ms = max((each.time_ms for each in said), default=-1)
            rows.append((key, value, max(now_ms, latest_ms + 1), step))
        if rows:
            self._log("metrics", rows)

    def _remember(self, keys: Mapping[str, object]) -> None:
        """Ask once for each metric what an older run has been told of it."""
        unknown = [key for key in keys if key not in self._said]
        if self._is_new or self.run_id is None or not unknown:
            return
        run_id = self.run_id

        def look(client: Any) -> dict[str, list[_Said]]:
            known = client.get_run(run_id).data.metrics
            return {
                key: [
                    _Said(entry.step, entry.value, entry.timestamp)
                    for entry in client.get_metric_history(run_id, key)
                ]
                for key in unknown
                if key in known
            }

        found = self.tracker.call(look) or {}
        self._said |= {key: found.get(key, []) for key in unknown}

    def tags(self, values: Mapping[str, str]) -> None:
        """Tag the run; the weights' hash also becomes part of its name."""
        self._log("tags", list(values.items()))
        if _WEIGHTS_TAG in values:
            name = f"{self._name}-{values[_WEIGHTS_TAG][:8]}"
            self._do(lambda client: client.update_run(self.run_id, name=name))

    def describe(self, text: str) -> None:
        """Say in words what the run came to; what a person wrote there is left alone."""

        def look(client: Any) -> bool:
            tags = client.get_run(self.run_id).data.tags
            there = tags.get(_DESCRIPTION_TAG, "")
            return not there or _sha256(there) == tags.get(_OWN_DESCRIPTION_TAG)

        if self.run_id is not None and self.tracker.call(look):
            self._log("tags", [(_DESCRIPTION_TAG, text), (_OWN_DESCRIPTION_TAG, _sha256(text))])

    def figure(self, name: str, png: bytes) -> None:
        """Keep a figure."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(png)
            self.artifact(path, "figures")

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a folder with all that it holds."""
        self._do(lambda client: client.log_artifact(self.run_id, str(path), folder))

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the run.

        Args:
            status: anything but FINISHED lets `start` go on with it.
        """
        self._do(lambda client: client.set_terminated(self.run_id, status))

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """Add to a run that has ended; killed in the middle, it is left RUNNING, not as if whole.

        Its end stays the end of the training.
        """
        ended = None
        if self.run_id is not None:
            found = self.tracker.call(lambda client: client.get_run(self.run_id))
            ended = found.info.end_time if found is not None else None
        self._do(lambda client: client.update_run(self.run_id, status="RUNNING"))
        yield
        self._do(lambda client: client.set_terminated(self.run_id, "FINISHED", end_time=ended))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def training_tags(
    paths: Paths,
    task: str,
    domain: str,
    *,
    weights_sha256: str,
    data_sha256: str,
    params_sha256: str,
    data_source: str,
) -> dict[str, str]:
    """What ties a run to the files of the pipeline; set at the end of a training."""
    return {
        "task": task,
        "domain": domain,
        _WEIGHTS_TAG: weights_sha256,
        "fieldlens.data_sha256": data_sha256,
        "fieldlens.params_sha256": params_sha256,
        "fieldlens.git_rev": git_revision(paths.root),
        "fieldlens.data_source": data_source,
    }


def git_revision(root: Path) -> str:
    """The commit of a checkout, with ``-dirty`` where it differs, or ``unknown``."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=root, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _flatten(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested mappings as one, with dotted names."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextmanager
def start(paths: Paths, task: str, domain: str, *, name: str, training_key: str) -> Iterator[Run]:
    """A run for the length of a training: FINISHED when the block ends well, FAILED if it raises.

    A killed training leaves a run that is not FINISHED; the next one with the same key goes on
    with it, so that one training stays one run.

    Args:
        training_key: hash of all that the training depends on.

    Yields:
        The run. Its calls never raise because of MLflow.
    """
    tags = {"task": task, "domain": domain, _TRAINING_KEY_TAG: training_key}
    tracker = Tracker(paths)
    found = tracker.newest_run(task, _TRAINING_KEY_TAG, training_key, unfinished=True)
    with _at_work(tracker, task, name, tags, found) as run:
        yield run


@contextmanager
def _at_work(
    tracker: Tracker, task: str, name: str, tags: dict[str, str], found: Any
) -> Iterator[Run]:
    """A run that ends as what is done in it ends: one that was found is gone on with."""
    if found is not None:
        run = Run(tracker, found.info.run_id, name, is_new=False)
        tracker.call(lambda client: client.update_run(run.run_id, status="RUNNING"))
    else:
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
    """The newest run that made these weights; None if there is none, or no tracking."""
    tracker = tracker or Tracker(paths)
    found = tracker.newest_run(task, _WEIGHTS_TAG, weights_sha256)
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
    """The run that made these weights, written after the fact if there is none."""
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
    """
    tracker = tracker or Tracker(paths)
    files = paths.task(task)
    of = tags.get(_WEIGHTS_TAG, "")
    # One that was killed here is gone on with.
    begun = tracker.newest_run(task, _RECORDING_TAG, of, unfinished=True)
    if begun is not None:
        run = Run(tracker, begun.info.run_id, name, is_new=False)
    else:
        first = {"fieldlens.recorded_from": files.history.name, _RECORDING_TAG: of}
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
        metrics: of the test split; nested mappings become dotted names below ``test``.
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

    Returns:
        The version, e.g. ``3``; None where tracking is off or has failed.
    """
    tracker = Tracker(paths)
    run = find_run(paths, task, weights_sha256, tracker=tracker)
    return register(
        tracker,
        task,
        run_id=None if run is None else run.run_id,
        onnx_path=onnx_path,
        bundle_path=bundle_path,
        tags=tags,
        description=description,
    )


# -- board ----------------------------------------------------------------------------------------
@contextmanager
def board(paths: Paths, task: str, domain: str, *, key: str, name: str = "board") -> Iterator[Run]:
    """The run of a board, whose cells are its children; one that was killed is gone on with.

    Args:
        key: hash of all that the board's cells depend on.
        name: of the run; a search's finalists are cells, too.

    Yields:
        The parent run. Its calls never raise because of MLflow.
    """
    tags = {"task": task, "domain": domain, _BOARD_TAG: key}
    tracker = Tracker(paths)
    found = tracker.newest_run(task, _BOARD_TAG, key)
    with _at_work(tracker, task, name, tags, found) as run:
        yield run


def record_cell(
    parent: Run,
    task: str,
    *,
    name: str,
    key: str,
    params: Mapping[str, object],
    metrics: Mapping[str, object],
    why_none: str | None,
    was_stopped: bool,
) -> None:
    """A child run of a board, unless it has been recorded before.

    Args:
        parent: of `board`.
        task: slug; the experiment's name.
        name: of the cell.
        key: hash of all that is recorded.
        params: what the cell is.
        metrics: nested mappings become dotted names.
        why_none: why there are none; ends the run as failed.
        was_stopped: ends it as killed instead.
    """
    if parent.run_id is None:
        return
    tracker, own = parent.tracker, f"{parent.run_id}/{key}"
    found = tracker.newest_run(task, _CELL_TAG, own)
    if found is not None and found.info.status != "RUNNING":
        return
    tags = {"task": task, _PARENT_TAG: parent.run_id, _CELL_TAG: own}
    if why_none is not None:
        tags["fieldlens.error"] = why_none
    is_new = found is None
    run_id = tracker.new_run(task, name, tags) if found is None else found.info.run_id
    run = Run(tracker, run_id, name, is_new=is_new)
    run.params(params)
    run.epoch(0, metrics)
    run.close("FINISHED" if why_none is None else "KILLED" if was_stopped else "FAILED")

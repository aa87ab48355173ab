"""The line to an MLflow store, which is made whole or not at all; the registry's versions.

MLflow makes its tables one after another, and SQLite keeps what was made so far: a process that is
killed in between would leave a store that no later one can open.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from pipelines.atomic import file_sha256
from pipelines.paths import Paths
from pipelines.quiet import go_quiet

#: Of a registered version, by which a later call finds it again.
_BUNDLE_TAG = "fieldlens.bundle_sha256"
#: The registry's alias of the released version.
CHAMPION = "champion"

T = TypeVar("T")
Kind = Literal["params", "metrics", "tags"]

_LOG = logging.getLogger(__name__)

#: MLflow reads these when it is imported. A laboratory must be able to work while its server is
#: away: one retry after at most 10 s; MLflow's own are seven after 120 s.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
#: MLflow takes at most so many parameters or tags in one request.
_BATCH = 100

#: Tells MLflow's page to show charts and a table of runs, not its screens for language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Tracker:
    """A line to one MLflow store that goes dead at the first failure instead of raising."""

    def __init__(self, paths: Paths) -> None:
        """Choose the store: the project's own unless MLFLOW_TRACKING_URI names another."""
        own = f"sqlite:///{paths.mlflow_db.resolve()}"
        self.uri = os.environ.get("MLFLOW_TRACKING_URI") or own
        self.artifacts_dir = paths.mlflow_artifacts_dir.resolve() if self.uri == own else None
        self.is_on = os.environ.get("FIELDLENS_TRACKING", "on").lower() != "off"
        self._client: Any = None

    def call(self, action: Callable[[Any], T]) -> T | None:
        """What ``action`` gives, or None where tracking is off or has failed."""
        if not self.is_on:
            return None
        go_quiet()
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        # Alembic tells each migration, urllib3 each retry, MLflow what a database said, with a
        # traceback; our one line says enough.
        for name in ("alembic", "urllib3", "mlflow.store.db.utils"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        failures: tuple[type[Exception], ...] = (ImportError,)
        try:
            # What MLflow warns of is between it and its own libraries.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"mlflow\b")
                failures = _failures()
                if self._client is None:
                    self._client = self._connect()
                return action(self._client)
        except failures as err:
            self.is_on = False
            # Of a database's error, its own words and not those of what stands before it.
            words = str(getattr(err.__cause__, "orig", err)).strip()
            reason = (words.splitlines() or [type(err).__name__])[0]
            line = f"MLflow at {self.uri} cannot be used ({reason:.300}): going on untracked."
            _LOG.warning("%s", re.sub(r"//[^/@\s]*@", "//", line))
            return None

    def _connect(self) -> Any:
        from mlflow import MlflowClient

        if self.uri.startswith("sqlite:///"):
            if self.artifacts_dir is not None:
                make_store(Path(self.uri.removeprefix("sqlite:///")))
            # Where a file cannot be opened, MLflow would try for 100 s.
            with contextlib.closing(sqlite3.connect(self.uri.removeprefix("sqlite:///"))) as store:
                store.execute("PRAGMA schema_version")
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self, client: Any, task: str) -> str:
        """The experiment of a task, made if it is not there."""
        experiment = client.get_experiment_by_name(task)
        if experiment is None:
            location = (self.artifacts_dir / task).as_uri() if self.artifacts_dir else None
            return str(
                client.create_experiment(task, artifact_location=location, tags=_EXPERIMENT_TAGS)
            )
        return str(experiment.experiment_id)

    def newest_run(self, task: str, tag: str, value: str, *, unfinished: bool = False) -> Any:
        """The newest run of a task that carries a tag, or None; finished or not, if not told."""
        more = " and attributes.status != 'FINISHED'" if unfinished else ""

        def look(client: Any) -> Any:
            runs = client.search_runs(
                [self.experiment_id(client, task)],
                f"tags.`{tag}` = '{value}'{more}",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
            return runs[0] if runs else None

        return self.call(look)

    def new_run(self, task: str, name: str, tags: dict[str, str]) -> str | None:
        """The id of a run that has just begun, or None."""

        def make(client: Any) -> str:
            run = client.create_run(self.experiment_id(client, task), tags=tags, run_name=name)
            return str(run.info.run_id)

        return self.call(make)

    def log(self, run_id: str, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
        """Add to a run, in as many requests as MLflow's bounds ask for.

        Rows: (name, value) of a parameter or tag, (name, value, ms since 1970, step) of a metric.
        """

        def send(client: Any) -> None:
            from mlflow import entities

            makers = {"params": entities.Param, "metrics": entities.Metric, "tags": entities.RunTag}
            for first in range(0, len(rows), _BATCH):
                batch = [makers[kind](*row) for row in rows[first : first + _BATCH]]
                client.log_batch(run_id, **{kind: batch})

        self.call(send)


def make_store(database: Path) -> None:
    """Make the store, under a temporary name first, if it is not there.

    Raises:
        OSError: if it cannot be written.
    """
    if database.exists():
        return
    from mlflow import MlflowClient

    lock = database.parent / ".cache" / "locks" / "mlflow.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        if database.exists():
            return
        temporary = database.with_name(f".tmp-{database.name}")
        for leftover in database.parent.glob(f"{temporary.name}*"):
            leftover.unlink()
        MlflowClient(tracking_uri=f"sqlite:///{temporary}").search_experiments()
        temporary.rename(database)


def _failures() -> tuple[type[Exception], ...]:
    """The roots of what MLflow, its database, its server and its disk raise."""
    from alembic.util import CommandError
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    # ImportError: an artifact store whose client (boto3, ...) is not installed.
    of_libraries = MlflowException, SQLAlchemyError, sqlite3.Error, CommandError, RequestException
    return (*of_libraries, OSError, ImportError)


def register(
    tracker: Tracker,
    task: str,
    *,
    run_id: str | None,
    onnx_path: Path,
    bundle_path: Path,
    tags: Mapping[str, str],
    description: str,
) -> str | None:
    """Point the alias ``champion`` at the version that holds a bundle, made if there is none yet.

    Returns:
        The version, e.g. ``3``; None where tracking is off or has failed.
    """
    tags = {**tags, _BUNDLE_TAG: file_sha256(bundle_path)}

    def add(client: Any) -> str:
        for version in client.search_model_versions(f"name = '{task}'"):
            if version.tags.get(_BUNDLE_TAG) == tags[_BUNDLE_TAG]:
                if not version.description:
                    client.update_model_version(task, version.version, description)
                return released(client, version)
        if not client.search_registered_models(f"name = '{task}'"):
            client.create_registered_model(task)
        experiment = tracker.experiment_id(client, task)
        model = client.create_logged_model(experiment, name=task, source_run_id=run_id)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            _save_onnx(folder, model, run_id=run_id, onnx_path=onnx_path, bundle_path=bundle_path)
            client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        # Not models:/<id>, and no model_id without a run: MLflow looks both up in the store of the
        # process, not of this client.
        made = client.create_model_version(
            task,
            model.artifact_location,
            run_id=run_id,
            tags=tags,
            description=description,
            model_id=None if run_id is None else model.model_id,
        )
        return released(client, made)

    def released(client: Any, version: Any) -> str:
        number = str(version.version)
        client.set_registered_model_alias(task, CHAMPION, number)
        return number

    return tracker.call(add)


def champion_version(tracker: Tracker, task: str) -> str | None:
    """The version that the alias ``champion`` points at, or None."""

    def version_of_alias(client: Any) -> str | None:
        for model in client.search_registered_models(f"name = '{task}'"):
            return str(model.aliases[CHAMPION]) if CHAMPION in model.aliases else None
        return None

    return tracker.call(version_of_alias)


def _save_onnx(
    folder: Path, model: Any, *, run_id: str | None, onnx_path: Path, bundle_path: Path
) -> None:
    """Write a model in MLflow's layout, as `mlflow.onnx.log_model` would.

    `log_model` itself would set the process's tracking URI and reopen the run.
    """
    import mlflow.onnx
    import onnx
    from mlflow.models import Model

    mlflow.onnx.save_model(
        onnx.load(onnx_path),
        str(folder),
        mlflow_model=Model(model.artifact_location, run_id=run_id, model_id=model.model_id),
        pip_requirements=["fieldlens"],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
        extra_files=[str(bundle_path)],
    )

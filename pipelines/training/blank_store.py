"""An empty MLflow store that is whole or not there.

MLflow makes its tables one after another, and SQLite keeps what was made so far: a process that is
killed in between leaves a store that no later one can open.
"""

from __future__ import annotations

import fcntl
from pathlib import Path


def make_store(database: Path) -> None:
    """Make the store, under a temporary name first, if it is not there.

    Args:
        database: the project's mlflow.db.

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

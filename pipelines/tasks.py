"""How a task's raw folder is read: `pipelines.<domain>.<task>` where there is one, else plainly.

A module is found by its name and nothing lists them, so that DVC re-runs one task when one task's
module changes. A plain task has none: its card says all that differs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipelines.card import DatasetCard
from pipelines.data.manifest import Record
from pipelines.errors import ConfigError
from pipelines.kinds.prepare import KINDS


class TaskModule(NamedTuple):
    """What only the task knows."""

    #: The images of datasets/<task>/raw, with label and group.
    records: Callable[[Path, DatasetCard], list[Record]]


def load_task(domain: str, task: str) -> TaskModule:
    """The task's module, or the plain reader where it has none.

    Raises:
        ConfigError: if there is a module without ``records``; names the file.
    """
    name = f"pipelines.{domain}.{task}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as err:
        # A module that is there and misses one of its own imports is a bug, and stays a traceback.
        if err.name != name:
            raise
        return TaskModule(lambda raw_dir, card: KINDS[card.kind].records(raw_dir, card))
    if not callable(getattr(module, "records", None)):
        raise ConfigError(
            f"{name.replace('.', '/')}.py: expected a function records(raw_dir, card), found none. "
            f"Without the file the folder is read as the card says."
        )
    return TaskModule(module.records)

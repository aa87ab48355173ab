"""A task's own module, found by its name: `pipelines.<domain>.<task>`.

Nothing lists the modules, so that DVC re-runs one task when one task's module changes. Called by
the stages that need what only the task knows: how its raw folder is read, how its samples look.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from PIL import Image

from pipelines.card import DatasetCard
from pipelines.data.manifest import Record
from pipelines.errors import ConfigError


class TaskModule(Protocol):
    """What every task module has."""

    def records(self, raw_dir: Path, card: DatasetCard) -> list[Record]:
        """The images of a raw folder, with label and group.

        Args:
            raw_dir: datasets/<task>/raw.
            card: of the task.
        """


class PaintingTask(TaskModule, Protocol):
    """A task module that can paint its own samples; one made by `fieldlens new` need not."""

    def paint(
        self, label: str, subject: np.random.Generator, shot: np.random.Generator, side_px: int
    ) -> Image.Image:
        """One picture of a class.

        Args:
            label: one of the card's labels.
            subject: draws what all pictures of one group share.
            shot: draws what differs from picture to picture.
            side_px: side of the square.
        """


def load_task(domain: str, task: str) -> TaskModule:
    """The module of a task.

    Args:
        domain: folder below ``pipelines``.
        task: slug.

    Raises:
        ConfigError: if there is no such module, or it has no ``records``; names the file.
    """
    name = f"pipelines.{domain}.{task}"
    file = f"{name.replace('.', '/')}.py"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as err:
        # A module that is there and misses one of its own imports is a bug, and stays a traceback.
        if err.name not in {name, f"pipelines.{domain}"}:
            raise
        raise ConfigError(
            f"{file}: there is no such task module. Expected a module with records(raw_dir, card); "
            f"`fieldlens new {domain} {task}` writes one."
        ) from err
    if not callable(getattr(module, "records", None)):
        raise ConfigError(f"{file}: expected a function records(raw_dir, card), found none.")
    return cast("TaskModule", module)

"""The tasks that the project ships: those that paint their samples. A user's own need less."""

from __future__ import annotations

from pathlib import Path

from pipelines.card import DEFAULT_KIND, load_card
from pipelines.config.params import load_params
from pipelines.paths import Paths

_PATHS = Paths(Path(__file__).resolve().parents[1])
_PARAMS = load_params(_PATHS.params)
SHIPPED = [name for name, each in _PARAMS.tasks.items() if each.fetch.source.kind == "sample"]
#: Those of them whose answer is a class.
OF_CLASSES = [task for task in SHIPPED if load_card(_PATHS.task(task).card).kind == DEFAULT_KIND]

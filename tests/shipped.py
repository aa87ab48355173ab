"""The tasks that the project ships: those that paint their samples. A user's own need less."""

from __future__ import annotations

from pathlib import Path

from pipelines.config.params import load_params

_PARAMS = load_params(Path(__file__).resolve().parents[1] / "params.yaml")
SHIPPED = [name for name, each in _PARAMS.tasks.items() if each.fetch.source.kind == "sample"]

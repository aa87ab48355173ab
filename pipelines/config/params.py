"""params.yaml -> frozen, checked `Params`; the only reader of that file.

Facts of a data set are in its card, those of a machine in the environment. Touches no data.
A stage imports the module of its section and never this one: a new field re-runs the stage that it
concerns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from pipelines.card import Domain, Slug
from pipelines.config.audit import AuditParams
from pipelines.config.board import BoardParams
from pipelines.config.evaluate import EvaluateParams
from pipelines.config.export import ExportParams
from pipelines.config.fetch import FetchParams
from pipelines.config.gate import GateParams
from pipelines.config.prepare import PrepareParams
from pipelines.config.search import SearchParams
from pipelines.config.train import TrainParams
from pipelines.errors import ConfigError
from pipelines.strict_yaml import Strict, read_yaml, validate


class RealParams(Strict):
    """What `make real` does otherwise with one task, on folders of real images."""

    #: Folder of the data folder that holds the task's images; null for the one of its name.
    data: str | None = None
    #: Folders of the data folder on which the released model is validated: other sites' images.
    validate_on: tuple[str, ...] = Field(default=(), strict=False)
    #: Laid over the sections of the same name below ``tasks``.
    prepare: dict[str, Any] = Field(default_factory=dict)
    audit: dict[str, Any] = Field(default_factory=dict)
    train: dict[str, Any] = Field(default_factory=dict)
    export: dict[str, Any] = Field(default_factory=dict)
    evaluate: dict[str, Any] = Field(default_factory=dict)
    gate: dict[str, Any] = Field(default_factory=dict)
    board: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Any] = Field(default_factory=dict)

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """What is laid over the task's sections, by section."""
        return self.model_dump(exclude={"data", "validate_on"}, exclude_unset=True)


class TaskParams(Strict):
    """One task: its domain, and a section a stage."""

    domain: Domain
    fetch: FetchParams
    prepare: PrepareParams
    audit: AuditParams
    train: TrainParams
    export: ExportParams
    evaluate: EvaluateParams
    gate: GateParams
    #: Of `fieldlens board`; no stage of the pipeline takes it.
    board: BoardParams = BoardParams()
    #: Of `fieldlens search`; no stage of the pipeline takes it.
    search: SearchParams = SearchParams()


class Params(Strict):
    """The whole of params.yaml."""

    #: Seed of everything random: painting, splits, augmentation, initial heads, order of batches.
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    tasks: dict[Slug, TaskParams] = Field(min_length=1)
    #: By task, what `make real` does otherwise.
    real: dict[Slug, RealParams] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _real_names_tasks(self) -> Params:
        unknown = set(self.real) - set(self.tasks)
        if unknown:
            raise ValueError(f"real names no task: {', '.join(sorted(unknown))}")
        return self

    def task(self, task: str) -> TaskParams:
        """The section of one task.

        Raises:
            ConfigError: if there is no such task; lists those that are.
        """
        if task not in self.tasks:
            raise ConfigError(
                f"params.yaml: tasks: there is no task {task!r}. "
                f"Expected one of {', '.join(self.tasks)}."
            )
        return self.tasks[task]


def load_params(path: Path) -> Params:
    """params.yaml, checked.

    Raises:
        ConfigError: names the file, the key, the rule and the value.
    """
    return validate(Params, read_yaml(path), path)

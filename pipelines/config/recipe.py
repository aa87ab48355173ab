"""A recipe: settings of a training that are laid over a task's own, in a file of recipes/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from pipelines.config.train import TrainParams
from pipelines.strict_yaml import Strict, overlay, read_yaml, validate


class Recipe(Strict):
    """A file of recipes/."""

    #: What is other than in the task's section of the same name.
    train: dict[str, Any] = Field(min_length=1)


def laid_over(params: TrainParams, path: Path) -> TrainParams:
    """A task's settings with those of a recipe in their place; sections are joined.

    Raises:
        ConfigError: if the file is no recipe, or the whole is not valid; names file, line and key.
    """
    recipe = validate(Recipe, read_yaml(path), path, has_lines=True)
    document = overlay(params.model_dump(mode="json"), recipe.train)
    return validate(TrainParams, document, path, "train", has_lines=True)

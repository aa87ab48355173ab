"""`fieldlens train TASK`: the stage, or a training by a recipe beside the task's own model."""

from __future__ import annotations

import argparse
import re
import time
from contextlib import nullcontext
from pathlib import Path

from pipelines.atomic import new_folder, write_bytes
from pipelines.commands import stage
from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.config.recipe import laid_over
from pipelines.errors import ConfigError, PipelineError, StorageError
from pipelines.paths import Paths, RecipePaths
from pipelines.training.runtime import is_first_to_say, rank_and_world

#: That long the others leave it to the primary to say why a training ends.
_PRIMARY_SPEAKS_S = 3.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task, and a recipe."""
    stage.add_arguments(parser)
    parser.add_argument(
        "--recipe",
        type=Path,
        metavar="FILE",
        help="lay this file's `train:` over the task's (recipes/ has some); the task's own model "
        "stays as it is",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where what the recipe makes goes (default: models/TASK/recipes/NAME)",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Train the task's own model, or one by a recipe."""
    try:
        if arguments.recipe is not None:
            return _by_recipe(arguments.task, arguments.recipe, arguments.out, paths)
        if arguments.out is not None:
            raise ConfigError(
                "--out: goes with --recipe alone; the task's own model goes to models/TASK/float."
            )
        return stage.main(arguments, paths)
    except PipelineError as err:
        if rank_and_world()[0] > 0:
            # What all processes have found the primary says; what this one alone has found, or
            # what is to be said where the primary is gone, is said then.
            time.sleep(_PRIMARY_SPEAKS_S)
        if is_first_to_say():
            raise
        return Answer(exit_code=err.exit_code)


def _by_recipe(task: str, recipe: Path, out: Path | None, paths: Paths) -> Answer:
    document = load_params(paths.params)
    section = document.task(task)
    if not recipe.is_file():
        raise ConfigError(f"--recipe: there is no file {recipe}. recipes/ has some; name one.")
    params = laid_over(section.train, recipe)
    followed = recipe.read_bytes()
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", recipe.stem)
    target = paths.task(task).recipes_dir / name if out is None else out
    _check_place(target)
    is_primary = rank_and_world()[0] == 0
    with stage.at_work("train", task, section, paths):
        from pipelines.stages import train

        # One name for all processes, though the primary alone writes.
        with new_folder(target) if is_primary else nullcontext(target) as folder:
            files = RecipePaths(paths.root, task, name, folder)
            try:
                train.run(task, section.domain, params, document.seed, paths, recipe=files)
            except ConfigError as err:
                raise ConfigError(f"{recipe}, laid over {task}: {err}") from err
            if is_primary:
                write_bytes(files.recipe_file, followed)
    if not is_primary:
        return Answer()
    return Answer(_compared(task, RecipePaths(paths.root, task, name, target), recipe, paths))


def _check_place(folder: Path) -> None:
    """Nothing, if what a recipe makes may take a folder's place."""
    marker = RecipePaths(folder, "", "", folder).recipe_file
    is_empty = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not is_empty and not marker.is_file():
        raise StorageError(
            f"--out: {folder} is no folder of a recipe's, and would be replaced. Expected one that "
            f"is not there yet, an empty one or an earlier recipe's. Name another folder."
        )


def _compared(task: str, files: RecipePaths, recipe: Path, paths: Paths) -> str:
    """What came out, and the task's own model beside it."""
    from pipelines.training.float_model import FloatModel, read_meta

    def figures(meta: FloatModel) -> str:
        return ", ".join(f"{name} {value:.3f}" for name, value in meta.val.items())

    made = read_meta(files.float_dir)
    n_images = made.n_images["val"]
    lines = [f"{task} by {recipe}: {figures(made)} ({n_images} images). {files.folder}"]
    own_dir = paths.task(task).float_dir
    if not paths.task(task).float_meta.is_file():
        lines.append("The task has no model of its own to compare with.")
    elif (own := read_meta(own_dir)).data_sha256 != made.data_sha256:
        lines.append("The task's own model is of other images or another split: not compared.")
    else:
        lines.append(f"The task's own model, same images: {figures(own)}.")
    return "\n".join(lines)

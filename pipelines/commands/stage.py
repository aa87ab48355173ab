"""The verbs that are DVC stages of one task."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from pipelines import locks
from pipelines.card import load_card
from pipelines.commands.answer import Answer
from pipelines.config.params import TaskParams, load_params
from pipelines.errors import ConfigError
from pipelines.paths import Paths
from pipelines.training.runtime import rank_and_world


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task."""
    parser.add_argument("task", help="as in params.yaml, e.g. tomato_leaf")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Run a stage by hand, whatever DVC thinks of it; a second one of the task is refused."""
    params, verb, task = load_params(paths.params), arguments.verb, arguments.task
    # Before the lock, so that a misspelt task leaves no lock file behind.
    section = params.task(task)
    with at_work(verb, task, section, paths):
        _run(verb, task, section, params.seed, paths)
    return Answer()


@contextmanager
def at_work(verb: str, task: str, section: TaskParams, paths: Paths) -> Iterator[None]:
    """Work on a task of a kind that is known; nobody else does meanwhile.

    Raises:
        BusyError: if somebody does.
        ConfigError: if its card names another kind.
    """
    card = paths.task(task).card
    # One that is not there is told by the stage that needs it.
    if card.is_file():
        _check_kind(card, section)
    # One training may be several processes: its primary alone holds the lock, and alone writes.
    is_primary = verb != "train" or rank_and_world()[0] == 0
    with locks.hold(paths.task(task).lock, f"{verb} {task}") if is_primary else nullcontext():
        yield


def _check_kind(card: Path, section: TaskParams) -> None:
    """Before any stage, and not in one: another kind is no reason to run it again."""
    from pipelines.kinds.gate import check_named
    from pipelines.serving.kinds import served_kind

    try:
        found = load_card(card)
        served_kind(found.kind).check_labels(found.labels)
    except ValueError as err:
        raise ConfigError(f"{card}: {err}.") from err
    check_named(found.kind, section.gate, found.task)


def _run(verb: str, task: str, section: TaskParams, seed: int, paths: Paths) -> None:
    match verb:
        case "fetch":
            from pipelines.stages import fetch

            fetch.run(task, section.domain, section.fetch, seed, paths)
        case "prepare":
            from pipelines.stages import prepare

            prepare.run(task, section.domain, section.prepare, seed, paths)
        case "audit":
            from pipelines.stages import audit

            resamples = section.evaluate.resamples
            audit.run(task, section.audit, section.train, resamples, seed, paths)
        case "train":
            from pipelines.stages import train

            train.run(task, section.domain, section.train, seed, paths)
        case "export":
            from pipelines.stages import export

            export.run(task, section.export, seed, paths)
        case "evaluate":
            from pipelines.stages import evaluate

            evaluate.run(task, section.evaluate, seed, paths)
        case "gate":
            from pipelines.stages import gate

            gate.run(task, section.gate, paths)

"""`fieldlens tasks`: what there is, and how far each task has come."""

from __future__ import annotations

import argparse

from pipelines.card import load_card
from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.errors import ConfigError
from pipelines.paths import Paths, TaskPaths

_HEADER = (
    *("TASK", "DOMAIN", "CLASSES", "SOURCE"),
    *("RAW", "PREPARED", "AUDIT", "FLOAT", "MOBILE", "METRICS", "TITLE"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def main(_: argparse.Namespace, paths: Paths) -> Answer:
    """One row a task; a card that breaks a rule is complained about, and the others are shown."""
    rows, complaints = [], []
    for task, section in load_params(paths.params).tasks.items():
        of_task = paths.task(task)
        try:
            card = load_card(of_task.card)
        except ConfigError as err:
            complaints.append(str(err))
            n_classes, title = "?", "(its card cannot be read)"
        else:
            n_classes = str(len(section.prepare.classes or card.labels))
            title = card.title
        done = ("yes" if is_done else "-" for is_done in _progress(of_task))
        rows.append((task, section.domain, n_classes, section.fetch.source.kind, *done, title))
    return Answer(table(_HEADER, rows), tuple(complaints), exit_code=2 if complaints else 0)


def _progress(of_task: TaskPaths) -> tuple[bool, ...]:
    """Whether raw, prepared, audit, float, mobile and metrics are there, in this order."""
    return (
        of_task.raw_dir.is_dir(),
        of_task.manifest.is_file(),
        of_task.audit.is_file(),
        of_task.float_weights.is_file(),
        of_task.bundle.is_file(),
        of_task.metrics.is_file(),
    )

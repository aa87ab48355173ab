"""`fieldlens stress`: the share of answers that small harmless changes of a picture turn.

Goes through the serving predictor; exit code 3 where a bound of params.yaml is missed.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.data.manifest import Entry, content_sha256, read_manifest
from pipelines.errors import DataError, GateError, LeakageError
from pipelines.kinds.evaluate import KINDS
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.predictor import Predictor
from pipelines.validation.behaviour import Flips, changes, flipped_answers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task, and which of its images."""
    parser.add_argument("task", help="as in params.yaml, e.g. tomato_leaf")
    parser.add_argument(
        "--split", choices=("val", "test"), default="test", help="default: test; bounds: on val"
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """A table with a row a change."""
    task, split = arguments.task, arguments.split
    section = load_params(paths.params).task(task)
    predictor = Predictor.load(paths.task(task).bundle, n_threads=os.cpu_count() or 1)
    files = paths.task(task)
    entries = _split(predictor, files, split)
    found = flipped_answers(
        predictor,
        entries,
        files.raw_dir,
        changes(with_flip=section.train.augment.horizontal_flip),
        section.evaluate.max_changed,
    )
    missed = [turned for turned in found if not turned.holds]
    complaints = tuple(
        f"{task}: {turned.change.name}: {turned.share:.3f} of the answers change, at most "
        f"{turned.bound:.3f} may (params.yaml: evaluate.max_changed.{turned.change.family})."
        for turned in missed
    )
    where = f"{task}, {predictor.precision}, {len(entries)} {split} images"
    kept_of = KINDS[predictor.bundle.kind].kept_of
    if kept_of:
        where += f"\nThe share is 1 minus what stays, a mean over images, of {kept_of}."
    exit_code = GateError.exit_code if missed else 0
    return Answer(f"{where}\n{_table(found)}", complaints, exit_code)


def _split(predictor: Predictor[Any], files: TaskPaths, split: str) -> list[Entry]:
    entries = read_manifest(files.manifest)
    if content_sha256(entries) != predictor.bundle.provenance.data_sha256:
        raise LeakageError(
            f"{files.manifest}: the splits are not those that the model was trained with, so "
            f"{split} images may have been train images. Run `dvc repro evaluate@{files.task}`."
        )
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        raise DataError(f"{files.manifest}: the {split} split is empty.")
    return chosen


def _table(found: list[Flips]) -> str:
    rows = [
        (
            turned.change.name,
            f"{turned.n_changed}",
            f"{turned.share:.3f}",
            "-" if turned.bound is None else f"{turned.bound:.3f}",
            f"{turned.n_refused}",
        )
        for turned in found
    ]
    return table(("CHANGE", "CHANGED", "SHARE", "BOUND", "NEWLY REFUSED"), rows)

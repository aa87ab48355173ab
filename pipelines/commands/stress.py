"""`fieldlens stress`: the share of answers that small harmless changes of a picture turn.

Goes through the serving predictor; exit code 3 where a bound of params.yaml is missed.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.data.manifest import content_sha256, read_manifest
from pipelines.errors import DataError, GateError, LeakageError
from pipelines.paths import Paths, TaskPaths
from pipelines.progress import track
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
    files = _split_files(predictor, paths.task(task), split)
    found = flipped_answers(
        predictor,
        track(files, f"{task}: stressing", len(files)),
        changes(with_flip=section.train.augment.horizontal_flip),
        section.evaluate.max_changed,
    )
    missed = [turned for turned in found if not turned.holds]
    complaints = tuple(
        f"{task}: {turned.change.name}: {turned.share:.3f} of the answers change, at most "
        f"{turned.bound:.3f} may (params.yaml: evaluate.max_changed.{turned.change.family})."
        for turned in missed
    )
    where = f"{task}, {predictor.precision}, {len(files)} {split} images"
    exit_code = GateError.exit_code if missed else 0
    return Answer(f"{where}\n{_table(found)}", complaints, exit_code)


def _split_files(predictor: Predictor, files: TaskPaths, split: str) -> list[Path]:
    entries = read_manifest(files.manifest)
    if content_sha256(entries) != predictor.bundle.provenance.data_sha256:
        raise LeakageError(
            f"{files.manifest}: the splits are not those that the model was trained with, so "
            f"{split} images may have been train images. Run `dvc repro evaluate@{files.task}`."
        )
    chosen = [entry for entry in entries if entry.split == split]
    if not chosen:
        raise DataError(f"{files.manifest}: the {split} split is empty.")
    return [files.raw_dir / entry.path for entry in chosen]


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

"""`fieldlens score`: a model's answers to very many pictures, as a table.

What `predict` says of a few pictures on a terminal, this writes of a million into a file: by parts,
so that it goes on where it was killed, and an input that cannot be read is a row with its reason.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

from pipelines.columns import shown
from pipelines.commands import engines
from pipelines.commands.answer import Answer
from pipelines.commands.predict import SAMPLE_WARNING, find_bundle
from pipelines.data.workers import n_workers
from pipelines.errors import ConfigError
from pipelines.locks import hold
from pipelines.paths import Paths
from pipelines.progress import track
from pipelines.scale import coco, on_ray
from pipelines.scale.inputs import inputs_of
from pipelines.scale.scoring import FORMS, Job, Part, Scored, join, parts_of, score_parts
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.sessions import Precision

_PART = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the pictures, where the answers go, and by how many."""
    parser.add_argument("task", nargs="?", help="which model; needed where there are several")
    parser.add_argument(
        "source",
        help="a folder with all below it; a CSV or Parquet file with a column path; or an address, "
        "e.g. s3://bucket/folder",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="answers.parquet, answers.csv, or of boxes and masks answers.json (COCO)",
    )
    parser.add_argument(
        "--all-boxes", action="store_true", help="in answers.json those too that do not count"
    )
    parser.add_argument("--bundle", type=Path, metavar="PATH", help="a bundle.json, or its folder")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="where paths of a table begin (its own folder)"
    )
    parser.add_argument("--anonymous", action="store_true", help="ask a store as nobody")
    parser.add_argument(
        "--precision", choices=get_args(Precision), help="default: the one the bundle serves"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes of one thread each (one a core)"
    )
    parser.add_argument(
        "--part",
        type=int,
        default=_PART,
        metavar="N",
        help=f"pictures that are kept together when it is killed (default: {_PART})",
    )
    engines.add_arguments(parser, local="processes of this machine")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Score what is not scored yet, then put the parts into one file."""
    out: Path = arguments.out
    workers = n_workers() if arguments.workers is None else arguments.workers
    _check(arguments, workers)
    if arguments.task is not None and arguments.bundle is not None:
        raise ConfigError("score: a task and --bundle: expected one of them (got both).")
    path = find_bundle(paths, arguments.task, arguments.bundle)
    bundle = read_bundle(path)
    precision = arguments.precision or bundle.served.precision
    job = Job(path, precision, anonymous=arguments.anonymous, boxes=_boxes(arguments, bundle))
    inputs = inputs_of(arguments.source, arguments.images, anonymous=arguments.anonymous)
    folder = out.with_name(f"{out.name}.parts")
    with hold(folder / ".lock", f"score into {out}"):
        parts = parts_of(inputs, bundle, job, folder, arguments.part)
        left = [part for part in parts if not part.target.is_file()]
        what = f"{bundle.task}: scoring, in parts of {arguments.part}"
        for _ in track(_engine(arguments)(job, left, workers), what, len(left)):
            pass
        scored = join(parts, out, len(parts) - len(left))
        # The answers are whole; of parts of other models or lists nothing is left either.
        shutil.rmtree(folder)
    notes = (SAMPLE_WARNING,) if bundle.is_sample else ()
    return Answer(_said(scored, out), notes)


def _boxes(arguments: argparse.Namespace, bundle: Bundle) -> coco.Which | None:
    if arguments.out.suffix.lower() != ".json":
        if arguments.all_boxes:
            raise ConfigError(
                "--all-boxes: is of answers.json, where each box has its score. Name a file that "
                "ends in .json, or leave it out."
            )
        return None
    which: coco.Which = "all" if arguments.all_boxes else "counted"
    coco.check(bundle, which)
    return which


def _engine(arguments: argparse.Namespace) -> Callable[[Job, list[Part], int], Iterator[Part]]:
    if engines.is_ray(arguments):
        return partial(on_ray.score_parts, address=arguments.address)
    return score_parts


def _check(arguments: argparse.Namespace, workers: int) -> None:
    out: Path = arguments.out
    if out.suffix.lower() not in FORMS:
        raise ConfigError(f"--out: expected a name that ends in {', '.join(FORMS)} (got {out}).")
    if out.exists() and not arguments.overwrite:
        raise ConfigError(
            f"--out: {shown(str(out))} is there already. Name another file, or replace it by "
            f"--overwrite."
        )
    engines.is_ray(arguments)
    for option, value in (("--workers", workers), ("--part", arguments.part)):
        if value < 1:
            raise ConfigError(f"{option}: expected at least 1 (got {value}).")


def _said(scored: Scored, out: Path) -> str:
    kept = f"; {scored.n_kept:,} parts were there from before" if scored.n_kept else ""
    pictures = "1 picture" if scored.n_images == 1 else f"{scored.n_images:,} pictures"
    return (
        f"{shown(str(out))}: {pictures}, of which {scored.n_ood:,} out of "
        f"distribution and {scored.n_errors:,} unreadable (column error){kept}"
    )

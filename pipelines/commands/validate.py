"""`fieldlens validate TASK FOLDER`: what a released model is worth on images from elsewhere.

The folder is only read. The figures of the internal test split come from the bundle, so that they
are those of this very model.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.atomic import write_text
from pipelines.card import load_card
from pipelines.columns import shown, table
from pipelines.commands.answer import Answer
from pipelines.commands.predict import SAMPLE_WARNING
from pipelines.config.params import TaskParams, load_params
from pipelines.data.manifest import Entry, class_index_of, read_manifest
from pipelines.errors import BundleError, ConfigError, CorruptImageError, DataError
from pipelines.metrics.classification import macro_f1, rounded
from pipelines.metrics.intervals import by_counts
from pipelines.metrics.predictions import predictions_csv
from pipelines.metrics.resamples import draw, macro_f1s
from pipelines.paths import Paths, TaskPaths
from pipelines.progress import track
from pipelines.reports.blocks import with_interval
from pipelines.reports.validation import SAME_WORDS, external_page
from pipelines.serving.bundle import Bundle
from pipelines.serving.predictor import Predictor
from pipelines.validation.blind import (
    Looked,
    beyond_range,
    blind_features,
    blind_scores,
    look_at,
    probabilities_of,
)
from pipelines.validation.external import (
    VALIDATION_FILE,
    Abstained,
    BlindScore,
    SetAside,
    Validation,
    abstained,
    drops,
    measure,
)
from pipelines.validation.outside import Aside, Outside, Project, sift

_PAGE, _PREDICTIONS = "validation.html", "predictions.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the folder, and where the report goes."""
    parser.add_argument(
        "task", nargs="?", help="as in params.yaml, e.g. tomato_leaf (default: all)"
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        help="a folder a class, or records.csv with path, label and group (default: the folders "
        "that params.yaml names below real.TASK.validate_on)",
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="PATH", help="another bundle.json of the task, or its folder"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the report goes (default: reports/TASK/external/FOLDER)",
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="for a program")


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Validate on the folder that is named, or on those that params.yaml names.

    Raises:
        ConfigError: if the bundle is of another task, ``--out`` lies in the folder, or a task is
            named that has no folder.
        BundleError: if the bundle is missing, changed or not finished.
        MissingDataError: if there is no such folder.
        DataError: if nothing in the folder counts, or its classes are not those of the card.
    """
    if arguments.folder is None:
        return _on_declared(paths, arguments.task)
    return _on_folder(
        paths,
        arguments.task,
        arguments.folder,
        bundle_path=arguments.bundle,
        out=arguments.out,
        as_json=arguments.as_json,
    )


def _on_folder(
    paths: Paths,
    task: str,
    folder: Path,
    *,
    bundle_path: Path | None = None,
    out: Path | None = None,
    as_json: bool = False,
) -> Answer:
    """Write validation.json, validation.html and predictions.csv, and give them in short."""
    params = load_params(paths.params)
    section = params.task(task)
    files = paths.task(task)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", folder.resolve().name) or "folder"
    target = out if out is not None else files.external_dir / name
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"--out: {shown(str(target))} lies in {shown(str(folder))}, which is only read. "
            f"Name a folder outside of it."
        )
    predictor = _predictor(files, bundle_path)
    sifted = sift(
        folder,
        load_card(files.card),
        predictor.bundle.labels,
        _project(files, predictor.bundle),
        min_side_px=section.prepare.min_side_px,
        reading=predictor.reading,
        near_duplicate_bits=section.prepare.near_duplicate_bits,
    )
    names = dict(predictor.bundle.label_names)
    looked, refused = _ask_each(folder, sifted, predictor)
    found = _validation(predictor, folder, name, sifted, looked, refused, section, params.seed)
    write_text(target / VALIDATION_FILE, found.model_dump_json(indent=2) + "\n")
    write_text(target / _PAGE, external_page(found))
    write_text(
        target / _PREDICTIONS,
        predictions_csv(
            predictor.bundle.labels,
            [each.entry for each in looked],
            {predictor.precision: probabilities_of(looked)},
        ),
    )
    if as_json:
        return Answer(found.model_dump_json(indent=2))
    text = _as_text(found, target / _PAGE, beyond_range(looked, predictor))
    return Answer(f"{text}\n\n{sifted.account(refused).as_text('class', names)}")


def _on_declared(paths: Paths, task: str | None) -> Answer:
    """On the folders below ``real.<task>.validate_on``; of every finished bundle without a task."""
    params = load_params(paths.params)
    wanted = list(params.tasks) if task is None else [task]
    texts = []
    for each in wanted:
        params.task(each)
        real = params.real.get(each)
        if real is None or not real.validate_on:
            if task is not None:
                raise ConfigError(
                    f"validate: params.yaml names no folder in real.{task}.validate_on. Name one "
                    f"on the command line: fieldlens validate {task} FOLDER."
                )
        elif task is not None or paths.task(each).bundle.is_file():
            texts += [_on_folder(paths, each, paths.root / name).text for name in real.validate_on]
    return Answer("\n\n".join(texts))


def _predictor(files: TaskPaths, bundle_path: Path | None) -> Predictor:
    path = bundle_path if bundle_path is not None else files.bundle
    predictor = Predictor.load(path)
    bundle = predictor.bundle
    if bundle.task != files.task:
        raise ConfigError(
            f"--bundle: {shown(str(path))} is a model of {bundle.task!r}, expected one of "
            f"{files.task!r}."
        )
    if bundle.metrics is None:
        raise BundleError(
            f"{shown(str(path))}: was not tested, so there is no internal figure to compare with. "
            f"Run `dvc repro evaluate@{files.task}` first."
        )
    return predictor


def _project(files: TaskPaths, bundle: Bundle) -> Project | None:
    """The project's images, if its manifest is there; a bundle may travel without it."""
    if not files.manifest.is_file():
        return None
    return Project(read_manifest(files.manifest), files.raw_dir)


# -- one look at each image -----------------------------------------------------------------------
def _ask_each(
    folder: Path, sifted: Outside, predictor: Predictor
) -> tuple[list[Looked], list[Aside]]:
    looked, refused = list[Looked](), list[Aside]()
    what = f"{predictor.bundle.task}: asking the model"
    for entry in track(sifted.entries, what, len(sifted.entries)):
        try:
            looked.append(look_at(folder, entry, predictor))
        except CorruptImageError as err:
            refused.append(Aside(entry.path, "refused", err.reason))
    if not looked:
        raise DataError(
            f"{folder}: none of {len(sifted.entries)} images can be decoded (the first: "
            f"{refused[0].path!r}: {refused[0].reason}). Mend the folder."
        )
    return looked, refused


# -- figures --------------------------------------------------------------------------------------
def _validation(
    predictor: Predictor,
    folder: Path,
    name: str,
    sifted: Outside,
    looked: Sequence[Looked],
    refused: Sequence[Aside],
    section: TaskParams,
    seed: int,
) -> Validation:
    bundle, params = predictor.bundle, section.evaluate
    entries = [each.entry for each in looked]
    true = class_index_of(entries, bundle.labels)
    probabilities = probabilities_of(looked)
    draws = draw([entry.group for entry in entries], params.resamples, seed)
    metrics, intervals = measure(draws, true, probabilities, bundle.labels, params.calibration_bins)
    blind, missing = _blind(folder, looked, section, seed)
    aside = sorted((*sifted.aside, *refused), key=lambda each: each.path)
    majority = np.full_like(true, np.bincount(true).argmax())
    return Validation(
        task=bundle.task,
        title=bundle.title,
        folder=name,
        precision=predictor.precision,
        model_sha256=bundle.files[predictor.precision].sha256,
        data_source=bundle.provenance.data_source,
        folder_sha256=_content(entries),
        labels=bundle.labels,
        label_names=bundle.label_names,
        absent_labels=tuple(
            label for index, label in enumerate(bundle.labels) if index not in true
        ),
        n_found=len(entries) + len(aside),
        n_images=len(entries),
        n_groups=draws.n_groups,
        set_aside=tuple(
            SetAside(path=each.path, kind=each.kind, reason=each.reason) for each in aside
        ),
        duplicates_sought=sifted.sought,
        metrics=metrics,
        intervals=intervals,
        drops=drops((bundle.intervals or {}).get(predictor.precision, {}), intervals),
        abstained=_abstained(predictor, looked, true, probabilities, params.resamples, seed),
        chance=rounded(macro_f1(true, majority, len(bundle.labels))),
        blind=blind,
        blind_missing=missing,
        resamples=params.resamples,
        seed=seed,
    )


def _content(entries: Sequence[Entry]) -> str:
    lines = sorted(f"{entry.sha256}\t{entry.label}\t{entry.group}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _abstained(
    predictor: Predictor,
    looked: Sequence[Looked],
    true: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    resamples: int,
    seed: int,
) -> Abstained | None:
    if predictor.bundle.abstention is None:
        return None
    is_foreign = np.array([each.prediction.is_foreign for each in looked])
    answers, kept = probabilities.argmax(axis=1), ~is_foreign
    groups = np.array([each.entry.group for each in looked])
    f1 = None
    if kept.any():
        of_kept = draw(groups[kept], resamples, seed)
        f1 = by_counts(of_kept, true[kept], answers[kept], probabilities.shape[1], macro_f1s)
    return abstained(draw(groups, resamples, seed), is_foreign, answers == true, f1)


def _blind(
    folder: Path, looked: Sequence[Looked], section: TaskParams, seed: int
) -> tuple[tuple[BlindScore, ...], str]:
    """Blind baselines; or none, and why."""
    try:
        return blind_scores(
            blind_features(folder, looked),
            [each.entry.label for each in looked],
            [each.entry.group for each in looked],
            folds=section.audit.folds,
            seed=seed,
            resamples=section.evaluate.resamples,
        ), ""
    except DataError as err:
        return (), str(err)


# -- in short -------------------------------------------------------------------------------------
def _as_text(found: Validation, page: Path, beyond: str) -> str:
    lines = [
        f"{found.title} ({found.task}, {found.precision}) on {shown(found.folder)}: "
        f"{found.n_images:,} images of {found.n_groups:,} groups",
    ]
    if found.data_source == "sample":
        lines.append(SAMPLE_WARNING)
    aside = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in found.n_by_kind.items())
    lines.append(f"Set aside: {aside or 'nothing'}. Copies looked for: {found.duplicates_sought}.")
    rows = []
    for name, words in SAME_WORDS.items():
        if name not in found.intervals:
            continue
        drop = found.drops.get(name)
        rows.append(
            (
                words,
                with_interval(found.intervals[name]),
                with_interval(drop.internal) if drop else "not known",
                with_interval(drop.drop, sign="+") if drop else "",
                ("yes" if drop.do_intervals_overlap else "no") if drop else "",
            )
        )
    lines += ["", table(("METRIC", "HERE", "INTERNAL TEST", "DROP", "OVERLAP"), rows), ""]
    telling = [each for each in found.blind if each.decides]
    best = max(telling, key=lambda each: each.macro_f1.value, default=None)
    if best is not None:
        lines.append(
            f"Macro-F1 without seeing the subject ({best.name}): "
            f"{with_interval(best.macro_f1)}; of the commonest label: {found.chance:.3f}."
        )
    else:
        lines.append(f"No blind baseline: {found.blind_missing}")
    if found.abstained is not None:
        lines.append(
            f"Called foreign: {with_interval(found.abstained.refused)} of the images; accuracy on "
            f"the others {with_interval(found.abstained.accuracy_of_accepted)}."
        )
    if beyond:
        lines.append(beyond)
    lines.append(f"Report: {shown(str(page))}")
    return "\n".join(lines)

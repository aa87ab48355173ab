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
from pipelines.metrics.intervals import by_counts, draw, macro_f1s
from pipelines.metrics.predictions import predictions_csv
from pipelines.paths import Paths, TaskPaths
from pipelines.progress import track
from pipelines.reports.pages import external_page, with_interval
from pipelines.serving.bundle import Bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.trust import METRIC_NAMES
from pipelines.validation.blind import (
    Asked,
    ask,
    beyond_range,
    blind_features,
    blind_scores,
    probabilities_of,
)
from pipelines.validation.external import (
    DROPS,
    VALIDATION_FILE,
    Abstained,
    BlindScore,
    Excluded,
    Validation,
    abstained,
    drops,
    measure,
)
from pipelines.validation.new_images import NewImages, Project, sift

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
    """Validate on the folder that is named, or on those that params.yaml names."""
    task, folder, as_json = arguments.task, arguments.folder, arguments.as_json
    if folder is None:
        return _on_declared(paths, task)
    return _on_folder(paths, task, folder, arguments.bundle, arguments.out, as_json=as_json)


def _on_folder(
    paths: Paths,
    task: str,
    folder: Path,
    bundle_path: Path | None = None,
    out: Path | None = None,
    *,
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
    asked, refused = _ask_all(folder, sifted, predictor)
    found = _validation(predictor, folder, name, sifted, asked, refused, section, params.seed)
    write_text(target / VALIDATION_FILE, found.model_dump_json(indent=2) + "\n")
    write_text(target / _PAGE, external_page(found))
    write_text(
        target / _PREDICTIONS,
        predictions_csv(
            predictor.bundle.labels,
            [each.entry for each in asked],
            {predictor.precision: probabilities_of(asked)},
        ),
    )
    if as_json:
        return Answer(found.model_dump_json(indent=2))
    text = _as_text(found, target / _PAGE, beyond_range(asked, predictor))
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


# -- each image, once -----------------------------------------------------------------------------
def _ask_all(
    folder: Path, sifted: NewImages, predictor: Predictor
) -> tuple[list[Asked], list[Excluded]]:
    asked, refused = list[Asked](), list[Excluded]()
    what = f"{predictor.bundle.task}: asking the model"
    for entry in track(sifted.entries, what, len(sifted.entries)):
        try:
            asked.append(ask(folder, entry, predictor))
        except CorruptImageError as err:
            refused.append(Excluded(path=entry.path, kind="refused", reason=err.reason))
    if not asked:
        raise DataError(
            f"{folder}: none of {len(sifted.entries)} images can be decoded (the first: "
            f"{refused[0].path!r}: {refused[0].reason}). Mend the folder."
        )
    return asked, refused


# -- figures --------------------------------------------------------------------------------------
def _validation(
    predictor: Predictor,
    folder: Path,
    name: str,
    sifted: NewImages,
    asked: Sequence[Asked],
    refused: Sequence[Excluded],
    section: TaskParams,
    seed: int,
) -> Validation:
    bundle, params = predictor.bundle, section.evaluate
    entries = [each.entry for each in asked]
    true = class_index_of(entries, bundle.labels)
    probabilities = probabilities_of(asked)
    draws = draw([entry.group for entry in entries], params.resamples, seed)
    metrics, intervals = measure(draws, true, probabilities, bundle.labels, params.calibration_bins)
    blind, missing = _blind(folder, asked, section, seed)
    excluded = tuple(sorted((*sifted.excluded, *refused), key=lambda each: each.path))
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
        n_found=len(entries) + len(excluded),
        n_images=len(entries),
        n_groups=draws.n_groups,
        set_aside=excluded,
        duplicates_sought=sifted.sought,
        metrics=metrics,
        intervals=intervals,
        drops=drops((bundle.intervals or {}).get(predictor.precision, {}), intervals),
        abstained=_abstained(predictor, asked, true, probabilities, params.resamples, seed),
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
    asked: Sequence[Asked],
    true: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    resamples: int,
    seed: int,
) -> Abstained | None:
    if predictor.bundle.abstention is None:
        return None
    is_refused = np.array([each.prediction.is_ood for each in asked])
    answers, kept = probabilities.argmax(axis=1), ~is_refused
    groups = np.array([each.entry.group for each in asked])
    f1 = None
    if kept.any():
        of_kept = draw(groups[kept], resamples, seed)
        f1 = by_counts(of_kept, true[kept], answers[kept], probabilities.shape[1], macro_f1s)
    return abstained(draw(groups, resamples, seed), is_refused, answers == true, f1)


def _blind(
    folder: Path, asked: Sequence[Asked], section: TaskParams, seed: int
) -> tuple[tuple[BlindScore, ...], str]:
    """Blind baselines; or none, and why."""
    try:
        return blind_scores(
            blind_features(folder, asked),
            [each.entry.label for each in asked],
            [each.entry.group for each in asked],
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
    excluded = ", ".join(f"{n:,} {kind.replace('_', ' ')}" for kind, n in found.n_by_kind.items())
    lines.append(
        f"Set aside: {excluded or 'nothing'}. Copies looked for: {found.duplicates_sought}."
    )
    rows = []
    for name in DROPS:
        if name not in found.intervals:
            continue
        drop = found.drops.get(name)
        rows.append(
            (
                METRIC_NAMES[name],
                with_interval(found.intervals[name]),
                with_interval(drop.internal) if drop else "not known",
                with_interval(drop.drop, sign="+") if drop else "",
                ("yes" if drop.do_intervals_overlap else "no") if drop else "",
            )
        )
    lines += ["", table(("METRIC", "HERE", "INTERNAL TEST", "DROP", "OVERLAP"), rows), ""]
    best = found.best_blind
    if best is not None:
        lines.append(
            f"Macro-F1 without seeing the subject ({best.name}): "
            f"{with_interval(best.macro_f1)}; of the commonest label: {found.chance:.3f}."
        )
    else:
        lines.append(f"No blind baseline: {found.blind_missing}")
    if found.abstained is not None:
        lines.append(
            f"Called out of distribution: {with_interval(found.abstained.refused)} of the images; "
            f"accuracy on the others {with_interval(found.abstained.accuracy_of_accepted)}."
        )
    if beyond:
        lines.append(beyond)
    lines.append(f"Report: {shown(str(page))}")
    return "\n".join(lines)

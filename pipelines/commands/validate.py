"""`fieldlens validate TASK FOLDER`: what a released model is worth on images from elsewhere.

The folder is only read. The figures of the internal test split come from the bundle, so that they
are those of this very model.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.atomic import write_bytes, write_text
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
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval
from pipelines.validation.as_tested import as_tested
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
        help="a folder a class, or records.csv with path, label and group; boxes, masks or "
        "identities as `prepare` reads them (default: the folders "
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
    project = _project(files, predictor.bundle)
    sifted = sift(
        folder,
        load_card(files.card),
        predictor.bundle.labels,
        project,
        min_side_px=section.prepare.min_side_px,
        reading=predictor.reading,
        near_duplicate_bits=section.prepare.near_duplicate_bits,
    )
    case = _Case(predictor, folder, name, sifted, section, params.seed)
    # Where more than a label is true of an image, its kind measures it.
    if any(entry.truth for entry in sifted.entries):
        said = _of_truth(case, bundle_path or files.bundle, project)
    else:
        said = _of_labels(case)
    found = said.validation
    write_text(target / VALIDATION_FILE, found.model_dump_json(indent=2) + "\n")
    write_text(target / _PAGE, external_page(found))
    write_text(target / _PREDICTIONS, said.predictions)
    for file, png in said.figures.items():
        write_bytes(target / file, png)
    if as_json:
        return Answer(found.model_dump_json(indent=2))
    names = dict(predictor.bundle.label_names)
    text = _as_text(found, target / _PAGE, said.beyond, sorted(said.figures))
    return Answer(f"{text}\n\n{sifted.account(said.refused).as_text('class', names)}")


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
@dataclass(frozen=True, slots=True)
class _Case:
    """A model and the folder that it is tried on."""

    predictor: Predictor[Any]
    folder: Path
    name: str
    sifted: NewImages
    section: TaskParams
    seed: int


@dataclass(frozen=True, slots=True)
class _Said:
    """What there is to write.

    Attributes:
        predictions: the text of predictions.csv.
        refused: images that counted, and could not be used later.
        beyond: what goes beyond the range of the training data, in words.
        figures: PNG files by name.
    """

    validation: Validation
    predictions: str
    refused: Sequence[Excluded] = ()
    beyond: str = ""
    figures: Mapping[str, bytes] = field(default_factory=dict)


def _of_labels(case: _Case) -> _Said:
    bundle, params = case.predictor.bundle, case.section.evaluate
    asked, refused = _ask_all(case.folder, case.sifted, case.predictor)
    entries = [each.entry for each in asked]
    true = class_index_of(entries, bundle.labels)
    probabilities = probabilities_of(asked)
    draws = draw([entry.group for entry in entries], params.resamples, case.seed)
    metrics, intervals = measure(draws, true, probabilities, bundle.labels, params.calibration_bins)
    blind, missing = _blind(case.folder, asked, case.section, case.seed)
    majority = np.full_like(true, np.bincount(true).argmax())
    found = _validation(
        case,
        entries,
        refused,
        absent_labels=tuple(
            label for index, label in enumerate(bundle.labels) if index not in true
        ),
        n_groups=draws.n_groups,
        metrics=metrics,
        intervals=intervals,
        drops=drops(_internal(bundle, case.predictor), intervals),
        abstained=_abstained(
            case.predictor, asked, true, probabilities, params.resamples, case.seed
        ),
        chance=rounded(macro_f1(true, majority, len(bundle.labels))),
        blind=blind,
        blind_missing=missing,
    )
    text = predictions_csv(bundle.labels, entries, {case.predictor.precision: probabilities})
    return _Said(found, text, refused, beyond_range(asked, case.predictor))


def _of_truth(case: _Case, bundle_path: Path, project: Project | None) -> _Said:
    bundle, entries = case.predictor.bundle, case.sifted.entries
    predictors: dict[Precision, Predictor[Any]] = {
        precision: Predictor.load(bundle_path, precision) for precision in ("fp32", "int8")
    }
    of = as_tested(predictors, entries, case.folder, project, case.section.evaluate, case.seed)
    internal = _internal(bundle, case.predictor)
    # Points say the same again, and what is refused is told apart.
    names = [name for name in internal if name != "refused" and not name.startswith("point.")]
    found = _validation(
        case,
        entries,
        (),
        absent_labels=tuple(
            label
            for label in bundle.labels
            if not any(name.endswith(f".{label}") for name in of.intervals)
        ),
        n_groups=of.draws.n_groups,
        metrics=of.metrics,
        intervals=of.intervals,
        drops=drops(internal, of.intervals, names),
        abstained=of.abstained,
        chance=None,
        blind=(),
        blind_missing="",
    )
    return _Said(found, of.table, figures=of.figures)


def _internal(bundle: Bundle, predictor: Predictor[Any]) -> Mapping[str, Interval]:
    return (bundle.intervals or {}).get(predictor.precision, {})


def _validation(
    case: _Case, entries: Sequence[Entry], refused: Sequence[Excluded], **figures: Any
) -> Validation:
    """What is true of any folder, and its figures."""
    bundle, precision = case.predictor.bundle, case.predictor.precision
    excluded = sorted((*case.sifted.excluded, *refused), key=lambda each: each.path)
    return Validation(
        task=bundle.task,
        kind=bundle.kind,
        title=bundle.title,
        folder=case.name,
        precision=precision,
        model_sha256=bundle.files[precision].sha256,
        data_source=bundle.provenance.data_source,
        folder_sha256=_content(entries),
        labels=bundle.labels,
        label_names=bundle.label_names,
        n_found=len(entries) + len(excluded),
        n_images=len(entries),
        set_aside=tuple(excluded),
        duplicates_sought=case.sifted.sought,
        resamples=case.section.evaluate.resamples,
        seed=case.seed,
        **figures,
    )


def _content(entries: Sequence[Entry]) -> str:
    said = [
        (entry.sha256, entry.label, entry.group, *filter(None, [entry.truth])) for entry in entries
    ]
    lines = sorted("\t".join(each) + "\n" for each in said)
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
def _as_text(found: Validation, page: Path, beyond: str, figures: Sequence[str] = ()) -> str:
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
    for name in DROPS if found.chance is not None else found.drops or found.intervals:
        if name not in found.intervals:
            continue
        drop = found.drops.get(name)
        rows.append(
            (
                found.words_of(name),
                with_interval(found.intervals[name]),
                with_interval(drop.internal) if drop else "not known",
                with_interval(drop.drop, sign="+") if drop else "",
                ("yes" if drop.do_intervals_overlap else "no") if drop else "",
            )
        )
    lines += ["", table(("METRIC", "HERE", "INTERNAL TEST", "DROP", "OVERLAP"), rows), ""]
    if found.has_few_groups:
        lines.append(
            f"Groups are few ({found.n_groups}): the true figures may well lie outside of the "
            f"intervals."
        )
    lines.append(_blind_words(found))
    if found.absent_labels:
        lines.append(f"Nothing here shows {', '.join(map(found.name_of, found.absent_labels))}.")
    if found.abstained is not None:
        refused = f"Called out of distribution: {with_interval(found.abstained.refused)}"
        accuracy = found.abstained.accuracy_of_accepted
        others = (
            "" if found.chance is None else f"; accuracy on the others {with_interval(accuracy)}"
        )
        lines.append(f"{refused} of the images{others}.")
    if figures:
        lines.append(f"Figures beside the report: {', '.join(figures)}")
    if beyond:
        lines.append(beyond)
    lines.append(f"Report: {shown(str(page))}")
    return "\n".join(lines)


def _blind_words(found: Validation) -> str:
    best = found.best_blind
    if best is not None:
        return (
            f"Macro-F1 without seeing the subject ({best.name}): "
            f"{with_interval(best.macro_f1)}; of the commonest label: {found.chance or 0:.3f}."
        )
    if found.blind_missing:
        return f"No blind baseline: {found.blind_missing}"
    told = ", ".join(f"{found.words_of(name)} {of:.3f}" for name, of in found.unseen.items())
    return f"Without seeing the subject: {told}." if told else "No blind baseline is known here."

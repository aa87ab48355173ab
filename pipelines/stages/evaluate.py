"""evaluate: the test split through the very Predictor that the app runs, fp32 and int8.

Each picture is decoded once and goes through both files alone, as it will on a phone. How long that
takes is not written: a DVC output must not depend on the machine.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry, content_sha256, in_split, read_manifest
from pipelines.errors import DataError, LeakageError
from pipelines.kinds.evaluate import KINDS, Answers, TestedKind, answered
from pipelines.metrics.certainty import Certainty, plain, with_bounds
from pipelines.metrics.classification import rounded
from pipelines.metrics.intervals import draw
from pipelines.paths import Paths, TaskPaths
from pipelines.reports.pages import run_markdown
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import AuditReport, read_audit
from pipelines.tracking import runs

_LOG = logging.getLogger(__name__)

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


def run(task: str, params: EvaluateParams, seed: int, paths: Paths) -> None:
    """Write metrics.json, predictions.csv, confusion.csv, figures, and the finished bundle.json.

    Raises:
        BundleError: if `export` has not run, or its files were changed.
        MissingDataError: if there is no manifest, or audit.json is damaged.
        LeakageError: if the splits are not those that the model was trained with.
        DataError: if the test split is empty or is not what the model answers.
        CorruptImageError: if a picture was damaged after `prepare`.
    """
    files = paths.task(task)
    bundle = read_bundle(files.candidate)
    # DVC does not let it be absent; by hand it may, and then the gate refuses.
    audit = read_audit(files.audit, task) if files.audit.is_file() else None
    kind = KINDS[bundle.kind]
    entries = read_manifest(files.manifest)
    test = test_split(kind, bundle, entries, files)
    predictors = {
        precision: Predictor.load(files.candidate, precision, n_threads=os.cpu_count() or 1)
        for precision in PRECISIONS
    }
    answers = answered(predictors, test, files.raw_dir, in_split(entries, "train"))
    finished, metrics, certainty = measured(kind, answers, audit, params, seed)
    figures = kind.figures(answers, params)
    write_text(files.metrics, json.dumps(metrics, indent=2) + "\n")
    predictions, confusion = kind.tables(answers)
    write_text(files.predictions, predictions)
    write_text(files.confusion, confusion)
    with new_folder(files.test_figures_dir) as folder:
        for name, png in figures.items():
            write_bytes(folder / name, png)
    write_text(files.bundle, finished.to_json())
    _LOG.info("%s: %d test images, %s", task, len(test), kind.summary(metrics, certainty))
    description = run_markdown(finished, metrics)
    _tell_mlflow(bundle, with_bounds(metrics, certainty), figures, description, paths)


def measured(
    kind: TestedKind,
    answers: Answers,
    audit: AuditReport | None,
    params: EvaluateParams,
    seed: int,
) -> tuple[Bundle, dict[str, Any], Certainty]:
    """The finished bundle, metrics.json, and how certain its figures are.

    Args:
        kind: of the task.
        answers: of the test split.
        audit: of the data; None where there was none.
        params: the task's ``evaluate`` section.
        seed: draws the groups for the intervals.
    """
    # First: it refuses answers that are no numbers.
    figures = rounded(_metrics(kind, answers, params))
    draws = draw([entry.group for entry in answers.entries], params.resamples, seed)
    certainty = kind.certainty(answers, draws, params)
    metrics = {
        **figures,
        "intervals": {key: plain(certainty.intervals[key]) for key in PRECISIONS},
        "paired": plain(certainty.paired),
    }
    added = {
        "metrics": {key: metrics[key] for key in PRECISIONS},
        "intervals": certainty.intervals,
        "audit": audit,
    }
    finished = Bundle.model_validate(answers.bundle.model_copy(update=added).model_dump())
    return finished, metrics, certainty


def test_split(
    kind: TestedKind, bundle: Bundle, entries: Sequence[Entry], files: TaskPaths
) -> list[Entry]:
    """The test split, if it is the one that the training has never seen.

    Args:
        kind: of the task.
        bundle: of the model.
        entries: of the manifest.
        files: of the task.

    Raises:
        LeakageError: if it is another.
        DataError: if it is empty, or not what the model answers.
    """
    found, expected = content_sha256(entries), bundle.provenance.data_sha256
    if found != expected:
        raise LeakageError(
            f"{files.manifest}: the splits are not those that the model was trained with, so test "
            f"images may have been train images: expected data_sha256 {expected[:12]}…, got "
            f"{found[:12]}…. Run `dvc repro evaluate@{bundle.task}` to train on the new splits."
        )
    test = in_split(entries, "test")
    if not test:
        raise DataError(
            f"{files.manifest}: the test split is empty. Raise test_fraction in params.yaml."
        )
    unknown = kind.unknown(test, bundle)
    if unknown is not None:
        raise DataError(f"{files.manifest}: {unknown}. Run `dvc repro export@{bundle.task}`.")
    return test


def _metrics(kind: TestedKind, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
    bundle, entries = answers.bundle, answers.entries
    return {
        **kind.metrics(answers, params),
        "served": bundle.served.precision,
        "n_images": len(entries),
        "n_groups": len({entry.group for entry in entries}),
        "bytes": {key: bundle.files[key].size_bytes for key in PRECISIONS},
        "data_source": bundle.provenance.data_source,
        **kind.trust(answers, params),
    }


def _tell_mlflow(
    bundle: Bundle,
    metrics: dict[str, Any],
    figures: dict[str, bytes],
    description: str,
    paths: Paths,
) -> None:
    made_of = bundle.provenance
    files = paths.task(bundle.task)
    document: dict[str, Any] = {}
    # It only feeds MLflow, so its absence is no fault of this stage.
    with contextlib.suppress(OSError, ValueError):
        document = dict(json.loads(files.float_meta.read_text(encoding="utf-8")))
    run = runs.find_or_record(
        paths,
        bundle.task,
        made_of.float_sha256,
        name="-".join(filter(None, (made_of.backbone, document.get("strategy")))),
        params=document,
        tags=runs.training_tags(
            paths,
            bundle.task,
            bundle.domain,
            weights_sha256=made_of.float_sha256,
            data_sha256=made_of.data_sha256,
            params_sha256=made_of.params_sha256,
            data_source=made_of.data_source,
        ),
    )
    runs.log_test(run, metrics, figures, files.mobile_dir, description)

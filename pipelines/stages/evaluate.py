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
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry, class_index_of, content_sha256, in_split, read_manifest
from pipelines.errors import DataError, LeakageError
from pipelines.metrics.certainty import (
    Certainty,
    metric_intervals,
    paired_intervals,
    plain,
    served_metrics,
    trust_intervals,
    with_bounds,
)
from pipelines.metrics.classification import (
    agreement,
    classification_metrics,
    max_recall_drop,
    rounded,
)
from pipelines.metrics.predictions import confusion_csv, predictions_csv
from pipelines.metrics.resamples import draw
from pipelines.paths import Paths, TaskPaths
from pipelines.plots.served import served_figures
from pipelines.progress import track
from pipelines.reports.pages import run_markdown
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import read_audit
from pipelines.tracking import stage as tracking

_LOG = logging.getLogger(__name__)

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the two files say about the test split.

    Attributes:
        class_index: (n,) true classes.
        logits: (n, c) by precision.
        probabilities: (n, c) by precision, rows add up to 1.
        is_refused: (n,) whether the served file refuses; None without abstention.
    """

    class_index: NDArray[np.int64]
    logits: dict[Precision, NDArray[np.float32]]
    probabilities: dict[Precision, NDArray[np.float32]]
    is_refused: NDArray[np.bool_] | None


def run(task: str, params: EvaluateParams, seed: int, paths: Paths) -> None:
    """Write metrics.json, predictions.csv, confusion.csv, figures, and the finished bundle.json.

    Raises:
        BundleError: if `export` has not run, or its files were changed.
        MissingDataError: if there is no manifest, or audit.json is damaged.
        LeakageError: if the splits are not those that the model was trained with.
        DataError: if the test split is empty or holds a label that the model does not know.
        CorruptImageError: if a picture was damaged after `prepare`.
    """
    files = paths.task(task)
    bundle = read_bundle(files.candidate)
    # DVC does not let it be absent; by hand it may, and then the gate refuses.
    audit = read_audit(files.audit, task) if files.audit.is_file() else None
    entries = _test_split(bundle, files)
    answers = _answer(bundle, entries, files)
    measured = rounded(_metrics(bundle, entries, answers, params))
    certainty = _certainty(bundle, entries, answers, params, seed)
    metrics = {
        **measured,
        "intervals": {key: plain(certainty.intervals[key]) for key in PRECISIONS},
        "paired": plain(certainty.paired),
    }
    served = bundle.served.precision
    figures = served_figures(
        bundle, answers.class_index, answers.logits[served], params.calibration_bins
    )
    write_text(files.metrics, json.dumps(metrics, indent=2) + "\n")
    write_text(files.predictions, predictions_csv(bundle.labels, entries, answers.probabilities))
    predicted = answers.probabilities[served].argmax(axis=1)
    write_text(files.confusion, confusion_csv(bundle.labels, entries, predicted))
    with new_folder(files.test_figures_dir) as folder:
        for name, png in figures.items():
            write_bytes(folder / name, png)
    added = {
        "metrics": {key: metrics[key] for key in PRECISIONS},
        "intervals": certainty.intervals,
        "audit": audit,
    }
    finished = Bundle.model_validate(bundle.model_copy(update=added).model_dump())
    write_text(files.bundle, finished.to_json())
    _LOG.info(
        "%s: %d test images, %s accuracy %.3f (95 %%: %.3f to %.3f), macro-F1 %.3f, "
        "agreement of int8 and fp32 %.3f",
        task,
        len(entries),
        served,
        metrics[served]["accuracy"],
        certainty.intervals[served]["accuracy"].low,
        certainty.intervals[served]["accuracy"].high,
        metrics[served]["macro_f1"],
        metrics["agreement"],
    )
    description = run_markdown(finished, metrics)
    _tell_mlflow(bundle, with_bounds(metrics, certainty), figures, description, paths)


def _test_split(bundle: Bundle, files: TaskPaths) -> list[Entry]:
    """The test split, if it is the one that the training has never seen."""
    entries = read_manifest(files.manifest)
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
    unknown = sorted({entry.label for entry in test} - set(bundle.labels))
    if unknown:
        raise DataError(
            f"{files.manifest}: the model knows no label {', '.join(unknown)}; expected "
            f"{', '.join(bundle.labels)}. Run `dvc repro export@{bundle.task}`."
        )
    return test


def _answer(bundle: Bundle, entries: Sequence[Entry], files: TaskPaths) -> Answers:
    n_threads = os.cpu_count() or 1
    predictors = {
        precision: Predictor.load(files.candidate, precision, n_threads=n_threads)
        for precision in PRECISIONS
    }
    rows: dict[Precision, list[NDArray[np.float32]]] = {precision: [] for precision in PRECISIONS}
    served, embeddings = bundle.served.precision, []
    novelty = predictors[served].novelty
    for entry in track(entries, f"{bundle.task}: testing", len(entries)):
        pixels = predictors["fp32"].pixels(files.raw_dir / entry.path)[np.newaxis]
        for precision, predictor in predictors.items():
            logits_of_one, embedding = predictor.run(pixels)
            rows[precision].append(logits_of_one)
            if precision == served:
                embeddings.append(embedding)
    logits = {precision: np.concatenate(found) for precision, found in rows.items()}  # (n, c)
    return Answers(
        class_index=class_index_of(entries, bundle.labels),
        logits=logits,
        probabilities={key: predictors[key].probabilities(logits[key]) for key in PRECISIONS},
        is_refused=novelty.judge(np.concatenate(embeddings))[1] if novelty else None,
    )


def _metrics(
    bundle: Bundle, entries: Sequence[Entry], answers: Answers, params: EvaluateParams
) -> dict[str, Any]:
    by_precision: dict[str, dict[str, Any]] = {
        precision: classification_metrics(
            answers.class_index,
            answers.probabilities[precision],
            bundle.labels,
            params.calibration_bins,
        )
        for precision in PRECISIONS
    }
    fp32, int8 = by_precision["fp32"], by_precision["int8"]
    return {
        **by_precision,
        "agreement": agreement(answers.logits["fp32"], answers.logits["int8"]),
        "accuracy_drop": fp32["accuracy"] - int8["accuracy"],
        "max_recall_drop": max_recall_drop(fp32, int8),
        "served": bundle.served.precision,
        "n_images": len(entries),
        "n_groups": len({entry.group for entry in entries}),
        "bytes": {key: bundle.files[key].size_bytes for key in PRECISIONS},
        "data_source": bundle.provenance.data_source,
        **served_metrics(
            bundle,
            answers.class_index,
            answers.logits[bundle.served.precision],
            answers.is_refused,
            params.calibration_bins,
        ),
    }


def _certainty(
    bundle: Bundle,
    entries: Sequence[Entry],
    answers: Answers,
    params: EvaluateParams,
    seed: int,
) -> Certainty:
    draws = draw([entry.group for entry in entries], params.resamples, seed)
    true = answers.class_index
    intervals = {
        key: metric_intervals(
            draws, true, answers.probabilities[key], bundle.labels, params.calibration_bins
        )
        for key in PRECISIONS
    }
    served = bundle.served.precision
    intervals[served] |= trust_intervals(
        draws, true, answers.probabilities[served], bundle, answers.is_refused
    )
    fp32, int8 = (answers.logits[key].argmax(axis=1) for key in PRECISIONS)
    return Certainty(intervals, paired_intervals(draws, true, fp32, int8, len(bundle.labels)))


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
    run = tracking.find_or_record(
        paths,
        bundle.task,
        made_of.float_sha256,
        name="-".join(filter(None, (made_of.backbone, document.get("strategy")))),
        params=document,
        tags=tracking.training_tags(
            paths,
            bundle.task,
            bundle.domain,
            weights_sha256=made_of.float_sha256,
            data_sha256=made_of.data_sha256,
            params_sha256=made_of.params_sha256,
            data_source=made_of.data_source,
        ),
    )
    tracking.log_test(run, metrics, figures, files.mobile_dir, description)

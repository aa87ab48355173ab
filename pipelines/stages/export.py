"""models/<task>/float/ -> ONNX, int8 and candidate.json: a bundle without its test metrics."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence

from pipelines.atomic import write_bytes, write_text
from pipelines.card import DatasetCard, load_card
from pipelines.config.export import ExportParams
from pipelines.data.manifest import content_sha256, read_manifest
from pipelines.errors import LeakageError
from pipelines.export.attempts import WEIGHTS_ALONE, Attempt, serving
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.export.trusted import ask_onnx, trusted
from pipelines.kinds.export import KINDS, ExportedKind
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.bundle import (
    Artefact,
    Bundle,
    Candidate,
    PreprocessSpec,
    Provenance,
    Serving,
    TensorSpec,
)
from pipelines.serving.sessions import make_session
from pipelines.training.exported import ask_before_refit, exported, known_pictures
from pipelines.training.float_model import FloatModel, load_float_model

_LOG = logging.getLogger(__name__)


def run(task: str, params: ExportParams, seed: int, paths: Paths) -> None:
    """Write model_fp32.onnx, model_int8.onnx, candidate.json and quantization.csv.

    Raises:
        MissingDataError: if `train` has not run.
        BundleError: if the float model is damaged.
        LeakageError: if the manifest is not the one that the model was trained with.
        ParityError: if the ONNX file disagrees with the float model.
        StorageError: if the disk is full.
    """
    files = paths.task(task)
    meta, model, float_sha256 = load_float_model(files.float_dir)
    card = load_card(files.card)
    kind = KINDS[card.kind]
    entries = read_manifest(files.manifest)
    if content_sha256(entries) != meta.data_sha256:
        raise LeakageError(
            f"{files.manifest}: the split is not the one that the model was trained with, so its "
            f"val and test images may have been trained on. Run `dvc repro train@{task}`."
        )
    _LOG.info("%s: exporting", task)
    made = exported(model, meta, entries, files.raw_dir, params, seed)
    attempts, best = made.attempts, made.best
    _LOG.info("%s: ONNX agrees with torch within %.1e", task, made.gap)
    served = _serving(best, meta, params)
    _LOG.info("%s: serves %s: %s", task, served.precision, served.reason)
    fp32, int8 = kind.finished(made.fp32), kind.finished(best.model)
    bundle = _bundle(kind, meta, card, float_sha256, fp32, attempts, int8, served, files)
    bundle = trusted(
        bundle,
        lambda outputs: kind.fitted(outputs, made.truth, card, meta.labels, params),
        ask_onnx({"fp32": fp32, "int8": int8}[served.precision]),
        known_pictures(meta, entries, files.raw_dir, seed),
        made.val_pixels,
        ask_before_refit(meta, files.float_dir),
        params,
    )
    write_bytes(files.onnx_fp32, fp32)
    write_bytes(files.onnx_int8, int8)
    write_text(files.quantization, _table([attempt.candidate for attempt in attempts]))
    # Last: it names the files above, and a reader checks them.
    write_text(files.candidate, bundle.to_json())


def _serving(best: Attempt, meta: FloatModel, params: ExportParams) -> Serving:
    return serving(
        best.candidate,
        best.missed,
        params,
        is_slow=best.is_slow,
        is_refit=meta.is_refit,
        is_float_inside=best.recipe.calibrator == WEIGHTS_ALONE,
    )


def _bundle(
    kind: ExportedKind,
    meta: FloatModel,
    card: DatasetCard,
    float_sha256: str,
    fp32: bytes,
    attempts: Sequence[Attempt],
    int8: bytes,
    served: Serving,
    files: TaskPaths,
) -> Bundle:
    meanings = {entry.label: entry.meaning for entry in card.classes}
    shapes = {each.name: each.shape[1:] for each in make_session(fp32).get_outputs()}
    return Bundle(
        schema_version=3,
        kind=card.kind,
        task=meta.task,
        domain=meta.domain,
        title=card.title,
        labels=meta.labels,
        label_meanings={label: meanings[label] for label in meta.labels},
        label_names={
            label: card.names[label] for label in meta.labels if card.names[label] != label
        },
        preprocess=PreprocessSpec.of(meta.preprocess),
        input=TensorSpec(
            name=INPUT_NAME,
            shape=(-1, meta.image_px, meta.image_px, 3),
            dtype="uint8",
            meaning="upright RGB pictures in [0, 255]; normalisation is in the model",
        ),
        outputs=tuple(
            TensorSpec(name=name, shape=(-1, *shapes[name]), dtype="float32", meaning=meaning)
            for name, meaning in kind.meanings.items()
        ),
        artefacts=(
            Artefact.of(files.onnx_fp32.name, "fp32", fp32),
            Artefact.of(files.onnx_int8.name, "int8", int8),
        ),
        served=served,
        int8_path=tuple(attempt.candidate for attempt in attempts),
        provenance=Provenance(
            backbone=meta.backbone,
            width=meta.width,
            weights=f"{meta.weights} ({meta.weights_provider})"
            if meta.weights_provider
            else meta.weights,
            weights_sha256=meta.weights_sha256,
            weights_licence=meta.weights_licence,
            float_sha256=float_sha256,
            data_sha256=meta.data_sha256,
            params_sha256=meta.params_sha256,
            data_source=meta.data_source,
            n_images=meta.n_images,
            n_groups=meta.n_groups,
            is_refit=meta.is_refit,
            is_split_given=card.splits == "given",
        ),
        intended_use=card.intended_use,
        not_for=card.not_for,
    )


def _table(candidates: Sequence[Candidate]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for row, candidate in enumerate(candidates):
        columns: dict[str, object] = {}
        for name, value in candidate.model_dump().items():
            columns |= value if name == "metrics" else {name: value}
        columns["float_nodes"] = json.dumps(candidate.float_nodes)
        if row == 0:
            writer.writerow(columns)
        writer.writerow(columns.values())
    return buffer.getvalue()

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
from pipelines.data.loaders import stratified_sample
from pipelines.data.manifest import content_sha256, in_split, read_manifest
from pipelines.errors import LeakageError
from pipelines.export.attempts import WEIGHTS_ALONE, Attempt
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.export.trusted import trusted
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
from pipelines.training.exported import exported, float_onnx, pictures
from pipelines.training.float_model import FloatModel, load_before, load_float_model

_LOG = logging.getLogger(__name__)

#: Train pictures that say what the model knows; a stratified sample, which bounds the time.
_MAX_KNOWN_IMAGES = 2000


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
    known = stratified_sample(in_split(entries, "train"), _MAX_KNOWN_IMAGES, seed)
    bundle = trusted(
        bundle,
        lambda outputs: kind.fitted(outputs, made.truth, card, meta.labels, params),
        {"fp32": fp32, "int8": int8}[served.precision],
        pictures(known, meta, seed, files.raw_dir),
        made.val_pixels,
        kind.finished(float_onnx(load_before(files.float_dir, meta), meta)[1])
        if meta.is_refit
        else None,
        params,
    )
    write_bytes(files.onnx_fp32, fp32)
    write_bytes(files.onnx_int8, int8)
    write_text(files.quantization, _table([attempt.candidate for attempt in attempts]))
    # Last: it names the files above, and a reader checks them.
    write_text(files.candidate, bundle.to_json())


def _serving(best: Attempt, meta: FloatModel, params: ExportParams) -> Serving:
    """int8 if it keeps its bounds and is not slower. No time is written: it is the machine's."""
    where = "the val split"
    if meta.is_refit:
        where += ", which the refitted network was trained on"
    if not best.candidate.holds_bounds:
        return Serving(
            precision="fp32",
            reason=f"no int8 file kept its bounds on {where}; the best missed: "
            f"{'; '.join(best.missed)}",
        )
    if best.is_slow:
        return Serving(
            precision="fp32",
            reason=f"int8 kept its bounds but was not {params.min_speedup:g} times as fast as fp32 "
            f"on one thread of the machine that exported it",
        )
    pace = f"was at least {params.min_speedup:g} times as fast as fp32 on one thread"
    if best.recipe.calibrator == WEIGHTS_ALONE:
        pace = "runs fp32's operators on weights that are stored as bytes"
    return Serving(
        precision="int8",
        reason=f"it kept its bounds on {where} (agreement {best.candidate.agreement:.1%}) "
        f"and {pace}",
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

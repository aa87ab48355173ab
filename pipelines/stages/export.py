"""models/<task>/float/ -> ONNX, int8 and candidate.json: a bundle without its test metrics."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from functools import partial

import numpy as np

from pipelines.atomic import write_bytes, write_text
from pipelines.backbones.heads import Classifier
from pipelines.card import DatasetCard, load_card
from pipelines.config.export import ExportParams
from pipelines.data.loaders import Pictures, calibration_batches, stratified_sample
from pipelines.data.manifest import Entry, content_sha256, in_split, read_manifest
from pipelines.errors import LeakageError
from pipelines.export.attempts import Attempt
from pipelines.export.graphs import with_inner_features
from pipelines.export.latency import paired_ms, speedup
from pipelines.export.onnx_export import INPUT_NAME, check_parity, classifier_onnx
from pipelines.export.remedies import search_int8
from pipelines.export.trusted import Ask, ask_onnx, trusted
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
from pipelines.training.batches import split_of
from pipelines.training.float_model import FloatModel, load_before, load_float_model

_LOG = logging.getLogger(__name__)

#: Val pictures on which the ONNX file must agree with torch.
_PARITY_IMAGES = 32
#: Val pictures on which int8 is measured; bounds the memory, not the honesty: a stratified sample.
MAX_VAL_IMAGES = 1000
#: Train pictures that say what the model knows; a stratified sample, which bounds the time.
MAX_KNOWN_IMAGES = 2000
_BATCH = 16


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
    plain, fp32 = _exported(model, meta)
    val = stratified_sample(in_split(entries, "val"), MAX_VAL_IMAGES, seed)
    shown = split_of(pictures(val, meta, seed, files), meta.labels, meta.kind)
    val_pixels, truth = np.concatenate(list(shown.pictures.batches(_BATCH))), shown.plain_truth()
    gap = check_parity(
        *(model, fp32, val_pixels[:_PARITY_IMAGES], meta.mean, meta.std), compared=kind.compared
    )
    _LOG.info("%s: ONNX agrees with torch within %.1e", task, gap)
    chosen = stratified_sample(in_split(entries, "train"), params.calibration_images, seed)
    calibration = calibration_batches(pictures(chosen, meta, seed, files))
    attempts = search_int8(
        plain,
        calibration,
        val_pixels,
        lambda reference: kind.judge(reference, truth, params),
        params,
    )
    best = next(attempt for attempt in attempts if attempt.candidate.is_chosen)
    served = _serving(fp32, best, meta, params)
    _LOG.info("%s: serves %s: %s", task, served.precision, served.reason)
    fp32, int8 = kind.finished(fp32), kind.finished(best.model)
    bundle = _bundle(kind, meta, card, float_sha256, fp32, attempts, int8, served, files)
    known = stratified_sample(in_split(entries, "train"), MAX_KNOWN_IMAGES, seed)
    bundle = trusted(
        bundle,
        lambda outputs: kind.fitted(outputs, truth, card, meta.labels, params),
        ask_onnx({"fp32": fp32, "int8": int8}[served.precision]),
        pictures(known, meta, seed, files),
        val_pixels,
        ask_before(kind, meta, files) if meta.is_refit else None,
        params,
    )
    write_bytes(files.onnx_fp32, fp32)
    write_bytes(files.onnx_int8, int8)
    write_text(files.quantization, _table([attempt.candidate for attempt in attempts]))
    # Last: it names the files above, and a reader checks them.
    write_text(files.candidate, bundle.to_json())


def _exported(model: Classifier, meta: FloatModel) -> tuple[bytes, bytes]:
    """ONNX in float32, to be quantised, and the same with both levels of the embedding."""
    plain = classifier_onnx(model, meta.image_px, meta.mean, meta.std)
    return plain, with_inner_features(plain)


def ask_before(kind: ExportedKind, meta: FloatModel, files: TaskPaths) -> Ask:
    """The network of a refitted model before the refit, in float32, as it answers.

    Args:
        meta: of the model.
        files: of its task.

    Raises:
        BundleError: if its file is absent or damaged.
    """
    return ask_onnx(kind.finished(_exported(load_before(files.float_dir, meta), meta)[1]))


def pictures(entries: Sequence[Entry], meta: FloatModel, seed: int, files: TaskPaths) -> Pictures:
    """Images as the model sees them.

    Args:
        entries: which.
        meta: of the model.
        seed: of the run.
        files: of the task.
    """
    return Pictures(files.raw_dir, entries, meta.preprocess, None, seed)


def _serving(fp32: bytes, best: Attempt, meta: FloatModel, params: ExportParams) -> Serving:
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
    pixels = np.zeros((1, meta.image_px, meta.image_px, 3), dtype=np.uint8)
    sessions = {"fp32": make_session(fp32), "int8": make_session(best.model)}
    times = paired_ms(
        {name: partial(one.run, None, {INPUT_NAME: pixels}) for name, one in sessions.items()}
    )
    ratio = speedup(times["fp32"], times["int8"])
    _LOG.info("int8 is %.2f times as fast as fp32 on one thread here", ratio)
    if ratio < params.min_speedup:
        return Serving(
            precision="fp32",
            reason=f"int8 kept its bounds but was not {params.min_speedup:g} times as fast as fp32 "
            f"on one thread of the machine that exported it",
        )
    return Serving(
        precision="int8",
        reason=f"it kept its bounds on {where} (agreement {best.candidate.agreement:.1%}) "
        f"and was at least {params.min_speedup:g} times as fast as fp32 on one thread",
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

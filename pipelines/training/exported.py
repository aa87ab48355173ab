"""A trained network as the files that a bundle may hold: float32, and int8 by a search.

The stage `export` and the cells of a board make them here, so that a board tells of the files that
`dvc repro` would write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.backbones.heads import Classifier
from pipelines.config.export import ExportParams
from pipelines.data.loaders import Pictures, calibration_batches, stratified_sample
from pipelines.data.manifest import Entry, in_split
from pipelines.export.attempts import Attempt
from pipelines.export.graphs import with_inner_features
from pipelines.export.latency import is_as_fast
from pipelines.export.onnx_export import INPUT_NAME, check_parity, classifier_onnx
from pipelines.export.remedies import search_int8
from pipelines.export.trusted import Ask, ask_onnx
from pipelines.kinds.export import KINDS
from pipelines.serving.sessions import make_session
from pipelines.training.batches import split_of
from pipelines.training.float_model import FloatModel, load_before

#: Val pictures on which the ONNX file must agree with torch.
_PARITY_IMAGES = 32
#: Val pictures on which int8 is measured; bounds the memory, not the honesty: a stratified sample.
_MAX_VAL_IMAGES = 1000
#: Train pictures that say what the model knows; a stratified sample, which bounds the time.
_MAX_KNOWN_IMAGES = 2000
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Exported:
    """What a network was made into, before its kind has finished the files.

    Attributes:
        fp32: ONNX, with both levels of the embedding.
        attempts: at int8.
        best: of these, the one that was chosen.
        gap: between torch and ONNX, see `check_parity`.
        val_pixels: (n, h, w, 3) plain views of val, on which int8 was judged.
        truth: (n, ...) of the same.
    """

    fp32: bytes
    attempts: list[Attempt]
    best: Attempt
    gap: float
    val_pixels: NDArray[np.uint8]
    truth: NDArray[Any]


def exported(
    model: Classifier,
    meta: FloatModel,
    entries: Sequence[Entry],
    raw_dir: Path,
    params: ExportParams,
    seed: int,
) -> Exported:
    """The files of a network.

    Args:
        entries: of the manifest that it was trained with.
        params: what int8 must hold, and how it is tried.
        seed: of the samples of train and val.

    Raises:
        ParityError: if the ONNX file disagrees with the float model.
    """
    kind = KINDS[meta.kind]
    plain, fp32 = float_onnx(model, meta)
    val_pixels, truth = val_views(meta, entries, raw_dir, seed)
    gap = check_parity(
        *(model, fp32, val_pixels[:_PARITY_IMAGES], meta.mean, meta.std), compared=kind.compared
    )
    attempts = search_int8(
        plain,
        calibration_views(meta, entries, raw_dir, params, seed),
        val_pixels,
        lambda reference: kind.judge(reference, truth, params),
        params,
        partial(_keeps_pace, fp32=fp32, pixels=val_pixels[:1], least=params.min_speedup),
    )
    best = next(attempt for attempt in attempts if attempt.candidate.is_chosen)
    return Exported(fp32, attempts, best, gap, val_pixels, truth)


def _keeps_pace(model: bytes, fp32: bytes, pixels: NDArray[np.uint8], least: float) -> bool:
    """Whether a file answers one picture at least so many times as fast as fp32, on one thread."""
    int8_run, fp32_run = (
        partial(make_session(each).run, None, {INPUT_NAME: pixels}) for each in (model, fp32)
    )
    return is_as_fast(int8_run, fp32_run, least)


def float_onnx(model: Classifier, meta: FloatModel) -> tuple[bytes, bytes]:
    """ONNX in float32, to be quantised, and the same with both levels of the embedding."""
    plain = classifier_onnx(model, meta.image_px, meta.mean, meta.std)
    return plain, with_inner_features(plain)


def ask_before_refit(meta: FloatModel, float_dir: Path) -> Ask | None:
    """The network before its refit, in float32, as it answers; None where there was no refit.

    Raises:
        BundleError: if its file is absent or damaged.
    """
    if not meta.is_refit:
        return None
    _, fp32 = float_onnx(load_before(float_dir, meta), meta)
    return ask_onnx(KINDS[meta.kind].finished(fp32))


def val_views(
    meta: FloatModel, entries: Sequence[Entry], raw_dir: Path, seed: int
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """(n, h, w, 3) plain views of val, on which files are judged, and their truth, (n, ...)."""
    val = stratified_sample(in_split(entries, "val"), _MAX_VAL_IMAGES, seed)
    shown = split_of(pictures(val, meta, seed, raw_dir), meta.labels, meta.kind)
    return np.concatenate(list(shown.pictures.batches(_BATCH))), shown.plain_truth()


def calibration_views(
    meta: FloatModel, entries: Sequence[Entry], raw_dir: Path, params: ExportParams, seed: int
) -> list[NDArray[np.uint8]]:
    """Batches of train pictures, each (n, h, w, 3), from which ranges of int8 are taken."""
    chosen = stratified_sample(in_split(entries, "train"), params.calibration_images, seed)
    return calibration_batches(pictures(chosen, meta, seed, raw_dir))


def known_pictures(
    meta: FloatModel, entries: Sequence[Entry], raw_dir: Path, seed: int
) -> Pictures:
    """Of the train split, those that say what the network knows."""
    known = stratified_sample(in_split(entries, "train"), _MAX_KNOWN_IMAGES, seed)
    return pictures(known, meta, seed, raw_dir)


def pictures(entries: Sequence[Entry], meta: FloatModel, seed: int, raw_dir: Path) -> Pictures:
    """Images as a network sees them, without random views."""
    return Pictures(raw_dir, entries, meta.preprocess, None, seed)

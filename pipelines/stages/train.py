"""prepared/ and raw/ -> models/<task>/float/, history.csv and figures; MLflow watches.

The test split is never opened here.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.backbones.weights import IMAGENET_MEAN, IMAGENET_STD, LoadedWeights
from pipelines.config.train import TrainParams
from pipelines.data.manifest import SPLITS, Entry, content_sha256, in_split, read_manifest
from pipelines.data.manifest import Split as SplitName
from pipelines.data.pixel_range import AS_IT_COMES, Reading
from pipelines.data.prepared import read_summary
from pipelines.data.workers import n_workers
from pipelines.errors import DataError
from pipelines.paths import Paths, TaskPaths
from pipelines.plots import figures as plots
from pipelines.plots.figures import confusion
from pipelines.tracking import stage as tracking
from pipelines.training.assembly import open_split, phases_of, preprocess_of
from pipelines.training.batches import Split
from pipelines.training.checkpoints import drop_checkpoint
from pipelines.training.fit import EpochLog, Phase, best_values, fit, history_csv
from pipelines.training.float_model import FloatModel, save_float_model
from pipelines.training.refit import refit
from pipelines.training.start import set_up_torch, start_model, training_device

_LOG = logging.getLogger(__name__)

#: What training may look at.
_SEEN_SPLITS: tuple[SplitName, ...] = ("train", "val")
#: Val pictures in the figure of sample predictions.
_N_SAMPLES = 12


def run(task: str, domain: str, params: TrainParams, seed: int, paths: Paths) -> None:
    """Train the float model of a task.

    Args:
        task: slug.
        domain: of the task.
        params: the task's ``train`` section.
        seed: of the run.
        paths: of the project.

    Raises:
        MissingDataError: if `prepare` has not run.
        DataError: if a label has no image to train on.
        ConfigError: if the backbone or the optimiser is unknown, or the cache bound too small.
        WeightsError: if pretrained weights cannot be had.
        StorageError: if the disk is full.
    """
    files = paths.task(task)
    set_up_torch(n_workers())
    summary = read_summary(files.prepare_summary)
    entries = read_manifest(files.manifest)
    _check_labels(entries, summary.labels, files)
    preprocess = preprocess_of(params, summary.reading)
    model, weights = start_model(params, len(summary.labels), seed, paths)
    model.to(training_device())
    train, val = (
        open_split(in_split(entries, name), summary.labels, params, seed, files, summary.reading)
        for name in _SEEN_SPLITS
    )
    key = _training_key(params, seed, content_sha256(entries), weights, summary.reading)
    phases = phases_of(task, model, params, train, val, seed, paths)
    name = f"{params.backbone}-{params.strategy}"
    with tracking.start(paths, task, domain, name=name, training_key=key) as tracked:
        tracked.params({"seed": seed, **params.model_dump(mode="json")})
        history = fit(
            model,
            phases,
            params,
            train_class_index=train.class_index,
            n_classes=len(summary.labels),
            seed=seed,
            checkpoint_dir=files.checkpoint_dir,
            key=key,
            on_epoch=lambda log: tracked.epoch(log.epoch, asdict(log)),
            what=task,
        )
        meta = FloatModel(
            task=task,
            domain=domain,
            labels=summary.labels,
            backbone=params.backbone,
            cut=model.cut,
            hidden=params.head.hidden,
            dropout=params.head.dropout,
            is_folded=weights is not None,
            resize_px=preprocess.resize_px,
            image_px=preprocess.crop_px,
            view=params.view,
            range=summary.reading.range,
            max_aspect=summary.reading.max_aspect,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            strategy=params.strategy,
            weights=params.weights,
            weights_provider=weights.provider if weights else None,
            weights_sha256=weights.sha256 if weights else None,
            weights_licence=weights.licence if weights else None,
            data_sha256=content_sha256(entries),
            data_source=summary.data_source,
            n_images={split: len(in_split(entries, split)) for split in SPLITS},
            n_groups={split: len({e.group for e in in_split(entries, split)}) for split in SPLITS},
            params_sha256=_params_sha256(params, seed),
            val=best_values(history, params.monitor),
            is_refit=params.refit,
        )
        val_logits = _val_logits(phases[-1], len(val.class_index))
        figures = _figures(history, val_logits, val, summary.labels)
        with new_folder(files.training_figures_dir) as folder:
            for file_name, png in figures.items():
                write_bytes(folder / file_name, png)
        write_text(files.history, history_csv(history))
        before = None
        if params.refit:
            before = model
            model = refit(
                task,
                params,
                len(summary.labels),
                train,
                val,
                seed,
                paths,
                checkpoint_dir=files.refit_checkpoint_dir,
                key=key,
                on_epoch=lambda log: tracked.epoch(
                    log.epoch, {"refit": {"train_loss": log.train_loss}}
                ),
            )
        with new_folder(files.float_dir) as folder:
            weights_sha256 = save_float_model(folder, meta, model, before)
        tracked.tags(
            tracking.training_tags(
                paths,
                task,
                domain,
                weights_sha256=weights_sha256,
                data_sha256=meta.data_sha256,
                params_sha256=meta.params_sha256,
                data_source=meta.data_source,
            )
        )
        tracked.artifact(files.training_figures_dir, "figures")
        drop_checkpoint(files.checkpoint_dir)
    _LOG.info(
        "%s: val accuracy %.3f, macro-F1 %.3f",
        task,
        meta.val["val_accuracy"],
        meta.val["val_macro_f1"],
    )


def _check_labels(entries: Sequence[Entry], labels: Sequence[str], files: TaskPaths) -> None:
    """Nothing, if each label has images to train on: a model must not answer with another."""
    present = {entry.label for entry in in_split(entries, "train")}
    missing = [label for label in labels if label not in present]
    if missing:
        raise DataError(
            f"{files.manifest}: no train image of {', '.join(missing)}. Expected some of each of "
            f"{', '.join(labels)}. Run `dvc repro prepare@{files.task}`; if it stays, add images "
            f"or leave the class out by `classes:` in params.yaml."
        )


def _params_sha256(params: TrainParams, seed: int) -> str:
    text = json.dumps({"seed": seed, **params.model_dump(mode="json")}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _training_key(
    params: TrainParams,
    seed: int,
    data_sha256: str,
    weights: LoadedWeights | None,
    reading: Reading,
) -> str:
    parts: tuple[str, ...] = (
        _params_sha256(params, seed),
        data_sha256,
        weights.sha256 if weights else "none",
    )
    if reading != AS_IT_COMES:
        parts = (*parts, repr(reading))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def _val_logits(phase: Phase, n_images: int) -> NDArray[np.float32]:
    """(n_images, n_classes) of the network that val chose."""
    if phase.val_logits is None:
        raise ValueError(f"the {phase.name} phase has no val split")
    with torch.inference_mode():
        logits = phase.val_logits().float().cpu()
    # A cached val split holds each picture once a precision; the first is enough.
    return logits[:: len(logits) // n_images].numpy()


def _figures(
    history: Sequence[EpochLog],
    val_logits: NDArray[np.float32],
    val: Split,
    labels: Sequence[str],
) -> dict[str, bytes]:
    probabilities = torch.softmax(torch.from_numpy(val_logits), dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    return {
        "curves.png": plots.training_curves([asdict(log) for log in history]),
        "val_confusion.png": confusion(val.class_index, predicted, labels, "val split"),
        "val_samples.png": _samples(val, labels, predicted, probabilities),
    }


def _samples(
    val: Split,
    labels: Sequence[str],
    predicted: NDArray[np.int64],
    probabilities: NDArray[np.float32],
) -> bytes:
    rows = np.linspace(0, len(predicted) - 1, min(_N_SAMPLES, len(predicted))).round().astype(int)
    return plots.sample_grid(
        [val.pictures.plain(val.pictures.entries[row]) for row in rows],
        [f"{labels[predicted[row]]} {probabilities[row].max():.0%}" for row in rows],
        [bool(predicted[row] == val.class_index[row]) for row in rows],
    )

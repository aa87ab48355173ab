"""A training from beginning to end, as a function: the stage and benchmarks/ call it.

Before it stand its parts, put together from a task's params: splits, phases, frozen trunk. So what
is timed is what `fieldlens train` does.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.atomic import new_folder, write_bytes
from pipelines.backbones.folding import batch_norms_of
from pipelines.backbones.heads import Classifier
from pipelines.backbones.spec import Input, backbone
from pipelines.backbones.weights import LoadedWeights
from pipelines.card import DEFAULT_KIND
from pipelines.config.train import DistillParams, TrainParams
from pipelines.data import manifest
from pipelines.data.loaders import Pictures, calibration_batches, stratified_sample
from pipelines.data.manifest import (
    SPLITS,
    Entry,
    Prepared,
    content_sha256,
    in_split,
    read_manifest,
    read_summary,
)
from pipelines.data.manifest import Split as SplitName
from pipelines.data.pixel_range import AS_IT_COMES, Reading
from pipelines.data.preprocess import Preprocess
from pipelines.data.workers import n_workers
from pipelines.errors import ConfigError, DataError
from pipelines.export import onnx_export as export
from pipelines.export.quantize import quantized_trunk
from pipelines.kinds.train import KINDS, BeginsWithData
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.sessions import Precision
from pipelines.training.batches import EVAL_BATCH, Split, device_of, split_of
from pipelines.training.cached import cached_phases
from pipelines.training.checkpoints import drop_checkpoint
from pipelines.training.fit import EpochLog, Phase, best_values, fit
from pipelines.training.float_model import FloatModel, check_folder, save_float_model
from pipelines.training.full import full_phases
from pipelines.training.runtime import Runtime, this_process
from pipelines.training.start import start_model
from pipelines.training.teachers import (
    Teacher,
    read_teachers,
    read_vector_teachers,
    taught,
    taught_by_vectors,
)

if TYPE_CHECKING:
    from pipelines.config.params import Params

_LOG = logging.getLogger(__name__)


# -- parts ----------------------------------------------------------------------------------------
def preprocess_of(params: TrainParams, reading: Reading = AS_IT_COMES) -> Preprocess:
    """The plain view that a network of these params takes, resized as its backbone asks."""
    interpolation = backbone(params.backbone, params.width).input.interpolation
    return manifest.preprocess_of(params, reading, interpolation)


def open_split(
    entries: Sequence[Entry],
    labels: Sequence[str],
    params: TrainParams,
    seed: int,
    files: TaskPaths,
    reading: Reading = AS_IT_COMES,
    kind: str = DEFAULT_KIND,
) -> Split:
    """Images of a split and what is true of them; labels in the order of the model's outputs."""
    preprocess = preprocess_of(params, reading)
    pictures = Pictures(files.raw_dir, entries, preprocess, params.augment, seed)
    return split_of(pictures, labels, kind)


def phases_of(
    task: str,
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split | None,
    seed: int,
    paths: Paths,
    runtime: Runtime | None = None,
) -> list[Phase]:
    """The phases of the strategy that params name; runs the frozen trunk where there is one.

    Args:
        runtime: whose processes share the work; None for this one alone.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``, or a trunk that must
            be trained would be frozen.
    """
    runtime = runtime or Runtime()
    network = backbone(params.backbone, params.width)
    if network.spec.inherits and params.strategy == "cached":
        raise ConfigError(
            f"params.yaml: {task}: train.strategy: {network.title} is cut out of "
            f"{network.spec.inherits}, so that all of it must be trained; cached would freeze "
            f"a part. Expected full."
        )
    if params.strategy == "full":
        expected = network.input
        normalised = partial(normalise, mean=expected.mean, std=expected.std)
        return full_phases(
            model, params, train, val, normalised, seed=seed, what=task, runtime=runtime
        )
    # The primary's: another machine may round its int8 otherwise, and name other activations.
    trunks = runtime.told(lambda: frozen_trunks(model, params, train.pictures, seed, paths))
    cache_dir = paths.activations_dir
    return cached_phases(
        model, params, train, val, trunks, cache_dir, seed=seed, what=task, runtime=runtime
    )


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes, (n, h, w, 3), as a network takes them: (n, 3, h, w) float32, channels last in memory.

    Mean and standard deviation are RGB, of pixels in [0, 1].
    """
    centred = pixels.float() / 255 - torch.tensor(mean)
    normalised: Tensor = (centred / torch.tensor(std)).permute(0, 3, 1, 2)
    return normalised.contiguous(memory_format=torch.channels_last)


def frozen_trunks(
    model: Classifier,
    params: TrainParams,
    pictures: Pictures,
    seed: int,
    paths: Paths,
) -> dict[Precision, bytes]:
    """The frozen trunk as ONNX, in each precision that the views ask for.

    The float one is kept, since tasks share it; pictures of the train split calibrate int8.
    """
    expected = backbone(params.backbone, params.width).input
    key = _trunk_key(model, params.image_px, expected)
    kept = paths.trunks_dir / f"{key}.onnx"
    if not kept.is_file():
        _LOG.info("exporting the frozen trunk of %s", params.backbone)
        write_bytes(kept, export.trunk_onnx(model, params.image_px, expected.mean, expected.std))
    trunk = kept.read_bytes()
    trunks: dict[Precision, bytes] = {}
    if params.int8_views < 1:
        trunks["fp32"] = trunk
    if params.int8_views > 0:
        chosen = stratified_sample(pictures.entries, params.calibration_images, seed)
        sample = Pictures(pictures.raw_dir, chosen, pictures.preprocess, None, seed)
        trunks["int8"] = quantized_trunk(trunk, calibration_batches(sample))
    return trunks


def _trunk_key(model: Classifier, image_px: int, expected: Input) -> str:
    """Names all that an exported trunk is made of: its weights, its input, and the exporter."""
    said = (model.cut, image_px, expected.mean, expected.std, torch.__version__)
    digest = hashlib.sha256(repr(said).encode())
    digest.update(Path(export.__file__).read_bytes())
    for block in model.blocks[: model.cut]:
        digest.update(str(block).encode())
        for tensor in block.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


# -- from beginning to end ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Job:
    """What is asked of a training."""

    task: str
    domain: str
    params: TrainParams
    seed: int

    @classmethod
    def of(cls, params: Params, task: str) -> Job:
        """What params.yaml asks of a task.

        Raises:
            ConfigError: if there is no such task.
        """
        section = params.task(task)
        return cls(task, section.domain, section.train, params.seed)


@dataclass(frozen=True, slots=True)
class Data:
    """What `prepare` has left of a data set; nothing in it depends on how it is trained on.

    Attributes:
        entries: of all splits; training opens train and val.
        summary: kind, labels, in the order of the model's outputs, and how files are read.
    """

    files: TaskPaths
    entries: list[Entry]
    summary: Prepared

    @classmethod
    def read(cls, files: TaskPaths) -> Data:
        """The prepared set of a task.

        Raises:
            MissingDataError: if `prepare` has not run.
            DataError: if what it wrote is damaged.
        """
        summary = read_summary(files.prepare_summary)
        return cls(files, read_manifest(files.manifest), summary)

    def split(self, name: SplitName, job: Job) -> Split:
        """The images of a split, as a job asks for them."""
        entries = in_split(self.entries, name)
        made = self.summary
        return open_split(
            entries, made.labels, job.params, job.seed, self.files, made.reading, made.kind
        )


class Observer:
    """What a caller may see of a training while it runs; to raise ends the training."""

    def begun(self, key: str, model: Classifier) -> None:
        """Weights are there and the frozen trunk has run; the first epoch is next.

        The key is a hash of all that the training depends on.
        """

    def epoch(self, log: EpochLog, *, is_refit: bool) -> None:
        """An epoch is done, of the first training or its refit; before a resumption, told again."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training has come to.

    Attributes:
        history: a row an epoch, those of a refit left out.
        val_outputs: (n_val, ...) of the head that val chose; of a classification, logits.
        before: of a refitted network, the one that had not seen val.
        weights_sha256: of the file in the folder; None where this process wrote none.
    """

    model: Classifier
    meta: FloatModel
    history: list[EpochLog]
    val_outputs: NDArray[np.float32]
    before: Classifier | None = None
    weights_sha256: str | None = None


def train(
    job: Job,
    data: Data,
    out: Path | None = None,
    *,
    paths: Paths | None = None,
    runtime: Runtime | None = None,
    observer: Observer | None = None,
    checkpoint_dir: Path | None = None,
    keep_checkpoint: bool = False,
) -> TrainResult:
    """Train a float model; a call that was killed goes on from its last epoch to the same bytes.

    Where params ask for a refit, a second network is trained from the start on train and val
    together, through all epochs, and is the result: what was trained on 80 % of the images is
    better than what was trained on 65 %. What needs answers to pictures that were not trained on,
    the temperature and the operating points, is taken from the first one (docs/adr/0019,
    docs/experiments/training.md). The test split is never opened.

    Args:
        out: folder for weights.safetensors and model.json, replaced as a whole; None writes none.
        paths: of pretrained weights, activations and checkpoints; by default the data's project.
        runtime: which process this is; by default as torchrun says, on as many threads as workers.
        observer: sees the training as it goes.
        checkpoint_dir: by default the task's; a refit's lies in it.
        keep_checkpoint: leave it where it is: for a caller who has more to write, and drops it.

    Returns:
        The network, its origin, and how it got there. Each process has it; the primary wrote it.

    Raises:
        DataError: if a label has no image to train on.
        ConfigError: if the backbone or the optimiser is unknown, the cache bound too small, or a
            teacher not there, of another kind or of other labels.
        WeightsError: if pretrained weights cannot be had.
        CorruptImageError: if an image changed since `prepare`.
        StorageError: if the disk is full, or the folder holds anything but a float model.
        RanksError: if processes disagree in what they train on.

    Example:
        In a project in which `fieldlens prepare weld_defect` has run::

            from pathlib import Path

            from fieldlens import Paths, PreparedData, TrainJob, load_params, train

            paths = Paths(Path())
            job = TrainJob.of(load_params(paths.params), "weld_defect")
            data = PreparedData.read(paths.task("weld_defect"))
            result = train(job, data, Path("weld_model"))
            result.meta.val["val_macro_f1"]

    References:
        scikit-learn's ``CalibratedClassifierCV(ensemble=False)``: the model of all images, with a
        calibration of answers to images that were held out.
    """
    paths = paths or Paths(data.files.root)
    runtime = runtime or this_process(n_workers())
    observer = observer or Observer()
    if out is not None:
        out = out.absolute()
        check_folder(out)
    what = job.task
    checkpoint_dir = checkpoint_dir or paths.task(what).checkpoint_dir
    train_split, val = data.split("train", job), data.split("val", job)
    kind, labels = KINDS[data.summary.kind], data.summary.labels
    _check_taught(kind.untaught(train_split.truth, labels), data)
    teachers = _teachers(job, data, paths)
    model, weights, phases = _begin(job, what, data, train_split, val, paths, runtime, teachers)
    key = _training_key(job, data, weights, teachers)
    observer.begun(key, model)

    def run(
        what: str, model: Classifier, phases: list[Phase], images: Split, checkpoint_dir: Path
    ) -> list[EpochLog]:
        criterion = kind.criterion(images.truth, len(labels), job.params)
        if isinstance(criterion, BeginsWithData):
            embeddings = partial(_embeddings, model, images, job.params)
            criterion.begin(model, images.plain_truth(), embeddings)
        return fit(
            model,
            phases,
            job.params,
            criterion=criterion,
            values=kind.values,
            seed=job.seed,
            checkpoint_dir=checkpoint_dir,
            key=key,
            on_epoch=partial(observer.epoch, is_refit=images is not train_split),
            what=what,
            runtime=runtime,
        )

    history = run(what, model, phases, train_split, checkpoint_dir)
    val_outputs = _val_outputs(phases[-1], len(val.truth))
    before = None
    if job.params.refit:
        before, both, what = model, train_split + val, f"{job.task} refit"
        # Of the same seed, through all epochs: no image is left to choose one.
        model, _, phases = _begin(job, what, data, both, None, paths, runtime, teachers)
        run(what, model, phases, both, checkpoint_dir / "refit")
    meta = _meta(job, data, weights, model, history, teachers)
    weights_sha256 = None
    if out is not None and runtime.is_primary:
        with new_folder(out) as folder:
            weights_sha256 = save_float_model(folder, meta, model, before)
    # No process returns before the primary has written.
    runtime.barrier()
    if runtime.is_primary and not keep_checkpoint:
        drop_checkpoint(checkpoint_dir)
    return TrainResult(model, meta, history, val_outputs, before, weights_sha256)


def _begin(
    job: Job,
    what: str,
    data: Data,
    images: Split,
    val: Split | None,
    paths: Paths,
    runtime: Runtime,
    teachers: Sequence[Teacher],
) -> tuple[Classifier, LoadedWeights | None, list[Phase]]:
    """The network before its first step, and its phases; the primary fills the caches."""
    with runtime.primary_first():
        made = data.summary
        model, weights = start_model(job.params, len(made.labels), job.seed, paths, made.kind)
        model.to(runtime.device)
        if job.params.distill is not None:
            images = _taught(images, made, job.params.distill, teachers, paths)
    runtime.check_same(_origin(job, data, weights, teachers))
    phases = phases_of(what, model, job.params, images, val, job.seed, paths, runtime)
    return model, weights, phases


def _embeddings(model: Classifier, images: Split, params: TrainParams) -> NDArray[np.float32]:
    """(n, d) of the plain views, of the network as it stands."""
    expected = backbone(params.backbone, params.width).input
    was_training, device = model.training, device_of(model)
    model.eval()
    with torch.inference_mode():
        parts = [
            model(normalise(torch.from_numpy(batch), expected.mean, expected.std).to(device))[1]
            for batch in images.pictures.batches(EVAL_BATCH)
        ]
    model.train(was_training)
    return torch.cat(parts).float().cpu().numpy()


def _teachers(job: Job, data: Data, paths: Paths) -> list[Teacher]:
    distill, made = job.params.distill, data.summary
    if distill is None:
        return []
    taught_by = KINDS[made.kind].taught_by
    if taught_by is None:
        raise ConfigError(
            f"params.yaml: train.distill: a teacher gives probabilities of labels or a vector; "
            f"{job.task} is of kind {made.kind!r}, which learns from neither. Leave distill out."
        )
    data_sha256, root = content_sha256(data.entries), data.files.root
    if taught_by == "vectors":
        return read_vector_teachers(job.params, made.kind, made.reading, data_sha256, paths, root)
    return read_teachers(distill, made.labels, data_sha256, root)


def _taught(
    images: Split,
    made: Prepared,
    distill: DistillParams,
    teachers: Sequence[Teacher],
    paths: Paths,
) -> Split:
    if KINDS[made.kind].taught_by == "vectors":
        return taught_by_vectors(images, teachers, paths.teachers_dir, normalise)
    temperature = distill.temperature
    return taught(images, made.labels, teachers, temperature, paths.teachers_dir, normalise)


def _check_taught(missing: Sequence[str], data: Data) -> None:
    """Nothing, if each label has images to train on: a model must not answer with another."""
    labels, files = data.summary.labels, data.files
    if missing:
        raise DataError(
            f"{files.manifest}: no train image of {', '.join(missing)}. Expected some of each of "
            f"{', '.join(labels)}. Run `dvc repro prepare@{files.task}`; if it stays, add images "
            f"or leave the class out by `classes:` in params.yaml."
        )


def _params_sha256(job: Job) -> str:
    text = json.dumps({"seed": job.seed, **job.params.model_dump(mode="json")}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _origin(
    job: Job, data: Data, weights: LoadedWeights | None, teachers: Sequence[Teacher]
) -> dict[str, str]:
    """What all processes of a training must have in common, by its name for the user."""
    return {
        "the sha256 of params.yaml's train section and seed": _params_sha256(job),
        "the sha256 of manifest.csv's images and splits": content_sha256(data.entries),
        "the sha256 of the pretrained weights": weights.sha256 if weights else "none",
        "the sha256 of the teachers": "/".join(teacher.sha256 for teacher in teachers) or "none",
        "how images are read": repr(data.summary.reading),
        "torch's version": torch.__version__,
    }


def _training_key(
    job: Job, data: Data, weights: LoadedWeights | None, teachers: Sequence[Teacher]
) -> str:
    parts: tuple[str, ...] = (
        _params_sha256(job),
        content_sha256(data.entries),
        weights.sha256 if weights else "none",
    )
    if data.summary.reading != AS_IT_COMES:
        parts = (*parts, repr(data.summary.reading))
    parts = (*parts, *(teacher.sha256 for teacher in teachers))
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def _val_outputs(phase: Phase, n_images: int) -> NDArray[np.float32]:
    """(n_images, ...) of the network that val chose."""
    if phase.val_outputs is None:
        raise ValueError(f"the {phase.name} phase has no val split")
    with torch.inference_mode():
        outputs = phase.val_outputs().float().cpu()
    # A cached val split holds each picture once a precision; the first is enough.
    return outputs[:: len(outputs) // n_images].numpy()


def _meta(
    job: Job,
    data: Data,
    weights: LoadedWeights | None,
    model: Classifier,
    history: list[EpochLog],
    teachers: Sequence[Teacher],
) -> FloatModel:
    params, summary = job.params, data.summary
    preprocess = preprocess_of(params, summary.reading)
    network = backbone(params.backbone, params.width)
    expected = network.input
    is_folded = weights is not None and not network.spec.inherits
    entries = {split: in_split(data.entries, split) for split in SPLITS}
    return FloatModel(
        task=job.task,
        domain=job.domain,
        kind=summary.kind,
        labels=summary.labels,
        backbone=params.backbone,
        width=params.width,
        cut=model.cut,
        hidden=params.head.hidden,
        dropout=params.head.dropout,
        is_folded=is_folded,
        unfolded=batch_norms_of(model) if is_folded else (),
        resize_px=preprocess.resize_px,
        image_px=preprocess.crop_px,
        interpolation=preprocess.interpolation,
        view=params.view,
        range=summary.reading.range,
        max_aspect=summary.reading.max_aspect,
        mean=expected.mean,
        std=expected.std,
        strategy=params.strategy,
        weights=params.weights,
        weights_provider=weights.provider if weights else None,
        weights_sha256=weights.sha256 if weights else None,
        weights_licence=weights.licence if weights else None,
        data_sha256=content_sha256(data.entries),
        data_source=summary.data_source,
        n_images={split: len(found) for split, found in entries.items()},
        n_groups={split: len({e.group for e in found}) for split, found in entries.items()},
        params_sha256=_params_sha256(job),
        teachers_sha256=tuple(teacher.sha256 for teacher in teachers),
        val=best_values(history, params.monitor),
        is_refit=params.refit,
    )

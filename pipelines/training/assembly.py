"""What a training consists of, put together from a task's params: splits, phases, frozen trunk.

The stage and benchmarks/ use the same steps, so that what is timed is what `fieldlens train` does.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from pipelines.atomic import write_bytes
from pipelines.backbones.heads import Classifier
from pipelines.backbones.registry import backbone
from pipelines.backbones.spec import Input
from pipelines.config.train import TrainParams
from pipelines.data import prepared
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import Entry, class_index_of
from pipelines.data.pixel_range import AS_IT_COMES, Reading
from pipelines.data.preprocess import Preprocess
from pipelines.export import onnx_export as export
from pipelines.export.calibration_images import calibration_batches, stratified_sample
from pipelines.export.quantize import quantized_trunk
from pipelines.paths import Paths, TaskPaths
from pipelines.serving.sessions import Precision
from pipelines.training.batches import Split
from pipelines.training.cached import cached_phases
from pipelines.training.fit import Phase
from pipelines.training.full import full_phases

_LOG = logging.getLogger(__name__)


def preprocess_of(params: TrainParams, reading: Reading = AS_IT_COMES) -> Preprocess:
    """The plain view that a network of these params takes, resized as its backbone asks.

    Args:
        params: backbone, side, crop and what is taken away.
        reading: of the prepared set.
    """
    interpolation = backbone(params.backbone).input.interpolation
    return prepared.preprocess_of(params, reading, interpolation)


def open_split(
    entries: Sequence[Entry],
    labels: Sequence[str],
    params: TrainParams,
    seed: int,
    files: TaskPaths,
    reading: Reading = AS_IT_COMES,
) -> Split:
    """Images of a split and their labels as numbers.

    Args:
        entries: of the split.
        labels: in the order of the logits.
        params: preprocessing and augmentation.
        seed: draws the views.
        reading: of the prepared set.
    """
    preprocess = preprocess_of(params, reading)
    pictures = Pictures(files.raw_dir, entries, preprocess, params.augment, seed)
    return Split(pictures, class_index_of(entries, labels))


def phases_of(
    task: str,
    model: Classifier,
    params: TrainParams,
    train: Split,
    val: Split | None,
    seed: int,
    paths: Paths,
) -> list[Phase]:
    """The phases of the strategy that params name; runs the frozen trunk where there is one.

    Args:
        task: slug, for progress bars.
        model: as `start.start_model` gives it.
        params: strategy and all that it needs.
        train: the train split.
        val: the val split; None trains without one.
        paths: of caches.

    Raises:
        ConfigError: if the activations would not fit into ``max_cache_bytes``.
    """
    if params.strategy == "full":
        expected = backbone(params.backbone).input
        normalised = partial(normalise, mean=expected.mean, std=expected.std)
        return full_phases(model, params, train, val, normalised, seed=seed, what=task)
    trunks = frozen_trunks(model, params, train.pictures, seed, paths)
    return cached_phases(
        model, params, train, val, trunks, paths.activations_dir, seed=seed, what=task
    )


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Bytes as a network takes them.

    Args:
        pixels: (n, h, w, 3) in [0, 255].
        mean: RGB, of pixels in [0, 1].
        std: RGB, of pixels in [0, 1].

    Returns:
        (n, 3, h, w) float32, channels last in memory.
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

    The float one is kept, since tasks share it.

    Args:
        model: as `start.start_model` gives it.
        params: cut, share of int8 views, and how many pictures calibrate them.
        pictures: of the train split, to calibrate int8.
        paths: where trunks are kept.
    """
    expected = backbone(params.backbone).input
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

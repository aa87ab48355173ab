"""The frozen backbone as an ONNX file, kept for all tasks: pixels in, an embedding out.

torch is imported only where the file is not there yet; with it there, a process that needs
embeddings starts in a fraction of the time. Called by `audit`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipelines.atomic import write_bytes
from pipelines.backbones.spec import backbone
from pipelines.backbones.weights import found_sha256
from pipelines.data.workers import n_workers
from pipelines.paths import Paths
from pipelines.serving.sessions import make_session

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams

_LOG = logging.getLogger(__name__)

#: What the file is made by, relative to the package.
_MAKERS = ("backbones", "export/onnx_export.py", "training/embedder.py")


def embedder(params: TrainParams, seed: int, paths: Paths) -> ort.InferenceSession:
    """A session of the frozen backbone that params name, for `embed`.

    The seed draws the weights where none are pretrained.

    Raises:
        ConfigError: if the backbone is unknown.
        WeightsError: if the weights cannot be had.
    """
    # A network that is cut out of another knows nothing before it is trained.
    whole = backbone(params.backbone, params.width).spec.inherits or params.backbone
    params = params.model_copy(update={"backbone": whole})
    kept = kept_at(params, seed, paths)
    if not kept.is_file():
        model = _export(params, seed, paths)
        # Again: weights may have been fetched just now.
        kept = kept_at(params, seed, paths)
        write_bytes(kept, model)
    return make_session(kept.read_bytes(), n_workers())


def embed(session: ort.InferenceSession, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pooled features, (n, n_features), of plain views, (n, image_px, image_px, 3) in [0, 255]."""
    activations = session.run(None, {session.get_inputs()[0].name: batch})[0]
    pooled: NDArray[np.float32] = activations.mean(axis=(2, 3), dtype=np.float32)
    return pooled


def kept_at(params: TrainParams, seed: int, paths: Paths) -> Path:
    """Where the file is kept: a name for its code, weights, torch, and what params say."""
    digest = hashlib.sha256(metadata.version("torch").encode())
    digest.update(repr((params.backbone, params.width, params.weights, params.image_px)).encode())
    if params.weights == "none":
        digest.update(str(seed).encode())
    else:
        digest.update(str(found_sha256(params.backbone, paths.weights_dir, params.width)).encode())
    for file in _code(backbone(params.backbone).spec.family):
        digest.update(file.name.encode() + file.read_bytes())
    return paths.trunks_dir / f"backbone-{digest.hexdigest()[:24]}.onnx"


def _code(family: str) -> Iterator[Path]:
    package = Path(__file__).resolve().parents[1]
    for name in (*_MAKERS, f"backbones/families/{family}.py"):
        path = package / name
        yield from sorted(path.glob("*.py")) if path.is_dir() else [path]


def _export(params: TrainParams, seed: int, paths: Paths) -> bytes:
    from pipelines.export.onnx_export import trunk_onnx
    from pipelines.training.start import start_model

    _LOG.info("exporting the frozen backbone %s", params.backbone)
    model, _ = start_model(params, 2, seed, paths)
    model.cut = len(model.blocks)  # all of it
    expected = backbone(params.backbone, params.width).input
    return trunk_onnx(model, params.image_px, expected.mean, expected.std)

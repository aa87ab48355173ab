"""models/<task>/float/: weights in safetensors, and model.json with all that rebuilds them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pipelines.atomic import file_sha256, write_bytes, write_text
from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier, make_classifier
from pipelines.config import ViewParams
from pipelines.data.preprocess import Preprocess, View
from pipelines.errors import BundleError, MissingDataError


class FloatModel(BaseModel):
    """model.json: what the weights are, and where they come from. No clock, host or path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    task: str
    domain: str
    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    backbone: str
    cut: int
    hidden: tuple[int, ...]
    dropout: float
    #: Whether batch norms were folded before training; if not, they were trained.
    is_folded: bool
    resize_px: int
    image_px: int
    view: Annotated[ViewParams, Field(exclude_if=lambda view: view.is_off)] = ViewParams()
    #: RGB, of pixels in [0, 1].
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    strategy: str
    weights: str
    weights_provider: str | None
    weights_sha256: str | None
    weights_licence: str | None
    data_sha256: str
    data_source: str
    n_images: dict[str, int]
    n_groups: dict[str, int]
    params_sha256: str
    #: Of the epoch that was kept; of a refitted model, the one before the refit.
    val: dict[str, float]
    #: Whether the weights were trained on train and val together (`training.refit`).
    is_refit: Annotated[bool, Field(exclude_if=lambda is_refit: not is_refit)] = False

    @property
    def preprocess(self) -> Preprocess:
        """The plain view that the network takes."""
        return Preprocess(self.resize_px, self.image_px, View(**dict(self.view)))

    def build(self) -> Classifier:
        """The network, untrained."""
        model = make_classifier(
            self.backbone,
            n_classes=len(self.labels),
            hidden=self.hidden,
            dropout=self.dropout,
            cut=self.cut,
            seed=0,
        )
        return fold_batch_norms(model) if self.is_folded else model


def save_held_out(path: Path, val_logits: NDArray[np.float32]) -> None:
    """Keep the answers of the training that had not seen val.

    Args:
        path: the file, see `TaskPaths.held_out`.
        val_logits: (n, n_classes) of the val split, in the manifest's order.
    """
    buffer = io.BytesIO()
    np.save(buffer, val_logits.astype(np.float32), allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def load_held_out(path: Path, n_images: int, n_classes: int) -> NDArray[np.float32]:
    """What `save_held_out` kept.

    Args:
        path: the file.
        n_images: of the val split.
        n_classes: number of logits.

    Raises:
        BundleError: if it is absent or damaged, or holds other numbers of images or classes.
    """
    try:
        logits: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as err:
        raise BundleError(
            f"{path}: the answers of the training before the refit cannot be read ({err}). "
            f"Make them again with `dvc repro -f train@{path.parent.parent.name}`."
        ) from err
    if logits.shape != (n_images, n_classes) or not np.isfinite(logits).all():
        raise BundleError(
            f"{path}: expected finite answers to {n_images} val images, {n_classes} classes each; "
            f"found an array of shape {logits.shape}. "
            f"Make them again with `dvc repro -f train@{path.parent.parent.name}`."
        )
    return logits


def save_float_model(folder: Path, meta: FloatModel, model: Classifier) -> str:
    """Write weights and model.json into a folder.

    Args:
        folder: to write into.
        meta: what goes into model.json.
        model: the trained network.

    Returns:
        sha256 of the weights file.
    """
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    path = folder / "weights.safetensors"
    write_bytes(path, save(tensors))
    text = json.dumps(meta.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_text(folder / "model.json", text + "\n")
    return file_sha256(path)


def load_float_model(folder: Path) -> tuple[FloatModel, Classifier, str]:
    """The trained network of a task, in inference mode.

    Args:
        folder: models/<task>/float.

    Returns:
        model.json, the network, and the sha256 of its weights file.

    Raises:
        MissingDataError: if training has not run.
        BundleError: if the files are damaged, or not of this version.
    """
    path = folder / "model.json"
    if not path.is_file():
        raise MissingDataError(
            f"{path}: there is no trained model. Run `fieldlens train {folder.parent.name}` first."
        )
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        meta = FloatModel.model_validate(document)
        model = meta.build()
        model.load_state_dict(load_file(folder / "weights.safetensors"))
    except (ValidationError, ValueError, OSError, SafetensorError, RuntimeError) as err:
        reason = " ".join(str(err).split())[:200]
        raise BundleError(
            f"{folder}: the float model cannot be read ({reason}). "
            f"Make it again with `dvc repro -f train@{folder.parent.name}`."
        ) from err
    return meta, model.eval(), file_sha256(folder / "weights.safetensors")

"""models/<task>/float/: weights in safetensors, and model.json with all that rebuilds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from pipelines.atomic import file_sha256, write_bytes, write_text
from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier
from pipelines.card import DEFAULT_KIND
from pipelines.config.view import ViewParams
from pipelines.data.pixel_range import MAX_ASPECT, Reading
from pipelines.data.preprocess import Interpolation, Preprocess, View
from pipelines.errors import BundleError, MissingDataError, StorageError
from pipelines.kinds.train import KINDS

_META = "model.json"
_WEIGHTS = "weights.safetensors"
_WEIGHTS_BEFORE = "before_refit.safetensors"
_DAMAGES = (ValueError, OSError, SafetensorError, RuntimeError)


class FloatModel(BaseModel):
    """model.json: what the weights are, and where they come from. No clock, host or path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    task: str
    domain: str
    kind: Annotated[str, Field(exclude_if=lambda kind: kind == DEFAULT_KIND)] = DEFAULT_KIND
    labels: tuple[str, ...]
    backbone: str
    width: Annotated[float, Field(exclude_if=lambda width: width == 1)] = 1.0
    cut: int
    hidden: tuple[int, ...]
    dropout: float
    #: Whether batch norms were folded before training; if not, they were trained.
    is_folded: bool
    #: Names of batch norms that no convolution could take when the others were folded.
    unfolded: Annotated[tuple[str, ...], Field(exclude_if=lambda names: not names)] = ()
    resize_px: int
    image_px: int
    interpolation: Annotated[
        Interpolation, Field(exclude_if=lambda interpolation: interpolation == "bilinear")
    ] = "bilinear"
    view: Annotated[ViewParams, Field(exclude_if=lambda view: view.is_off)] = ViewParams()
    #: How files are read (`Reading`).
    range: Annotated[
        Literal["full"] | tuple[float, float] | None, Field(exclude_if=lambda scale: scale is None)
    ] = None
    max_aspect: Annotated[float, Field(exclude_if=lambda most: most == MAX_ASPECT)] = MAX_ASPECT
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
    #: Hashes of the teachers that it learned from (`train.distill`): weights, or cached logits.
    teachers_sha256: Annotated[tuple[str, ...], Field(exclude_if=lambda hashes: not hashes)] = ()
    #: Of the epoch that was kept; of a refitted model, the one before the refit.
    val: dict[str, float]
    #: Whether the weights were trained on train and val together (`train.refit`).
    is_refit: Annotated[bool, Field(exclude_if=lambda is_refit: not is_refit)] = False

    @property
    def preprocess(self) -> Preprocess:
        """The plain view that the network takes."""
        reading = Reading(range=self.range, max_aspect=self.max_aspect)
        view = View(**dict(self.view))
        return Preprocess(self.resize_px, self.image_px, view, reading, self.interpolation)

    def build(self) -> Classifier:
        """The network, untrained."""
        n_labels = len(self.labels)
        model = KINDS[self.kind].network(
            self.backbone, self.width, n_labels, self.hidden, self.dropout, self.cut, 0
        )
        return fold_batch_norms(model) if self.is_folded else model


def save_float_model(
    folder: Path, meta: FloatModel, model: Classifier, before: Classifier | None = None
) -> str:
    """Write weights and model.json into a folder; gives the sha256 of the weights.

    Of a refitted model the network that had not seen val is written, too.
    """
    path = folder / _WEIGHTS
    write_bytes(path, _tensors(model))
    if before is not None:
        write_bytes(folder / _WEIGHTS_BEFORE, _tensors(before))
    text = json.dumps(meta.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_text(folder / _META, text + "\n")
    return file_sha256(path)


def check_folder(folder: Path) -> None:
    """Nothing, if a float model may take the place of what a folder holds.

    Raises:
        StorageError: if it holds anything else.
    """
    ours = {_META, _WEIGHTS, _WEIGHTS_BEFORE}
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    is_replaceable = not found - ours or _META in found
    if folder.is_file() or not is_replaceable:
        what = f"it holds {min(found - ours)!r}" if found else "it is a file"
        raise StorageError(
            f"{folder}: {what}, and would be replaced. Expected a folder that is not there yet, an "
            f"empty one or an earlier float model's. Name another folder."
        )


def _tensors(model: Classifier) -> bytes:
    data: bytes = save(
        {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    )
    return data


def read_meta(folder: Path) -> FloatModel:
    """model.json of a float model, without its weights.

    Raises:
        MissingDataError: if training has not run.
        BundleError: if the file is damaged, or not of this version.
    """
    path = folder / _META
    if not path.is_file():
        raise MissingDataError(
            f"{path}: there is no trained model. Run `fieldlens train {folder.parent.name}` first."
        )
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        return FloatModel.model_validate(document)
    except _DAMAGES as err:
        raise _damaged(folder, "the float model", err) from err


def load_float_model(folder: Path) -> tuple[FloatModel, Classifier, str]:
    """model.json of a task, its network in inference mode, and the sha256 of the weights file.

    Raises:
        MissingDataError: if training has not run.
        BundleError: if the files are damaged, or not of this version.
    """
    meta = read_meta(folder)
    try:
        model = _loaded(meta, folder / _WEIGHTS)
    except _DAMAGES as err:
        raise _damaged(folder, "the float model", err) from err
    return meta, model, file_sha256(folder / _WEIGHTS)


def load_before(folder: Path, meta: FloatModel) -> Classifier:
    """The network of a refitted model's first training, in inference mode.

    Raises:
        BundleError: if the file is absent or damaged.
    """
    try:
        return _loaded(meta, folder / _WEIGHTS_BEFORE)
    except _DAMAGES as err:
        raise _damaged(folder, "the network before the refit", err) from err


def _loaded(meta: FloatModel, weights: Path) -> Classifier:
    model = meta.build()
    model.load_state_dict(load_file(weights))
    return model.eval()


def _damaged(folder: Path, what: str, err: Exception) -> BundleError:
    reason = " ".join(str(err).split())[:200]
    return BundleError(
        f"{folder}: {what} cannot be read ({reason}). "
        f"Make it again with `dvc repro -f train@{folder.parent.name}`."
    )

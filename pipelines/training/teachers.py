"""Teachers of a distillation: networks and files of what they said, asked once a picture.

A teacher sees the plain view of each train picture, at its own resolution, once and for all epochs
and both strategies. To show it each random view would cost `full` a pass through it every epoch,
and files of logits know pictures, not views. What was answered is kept in ``.cache/teachers``, a
file a teacher and set of pictures, of the same form as a file of logits that a user brings.

A classification is taught by probabilities of its labels, an embedding by vectors: those of a float
model of its kind, or what a backbone makes of a picture by its pretrained weights.

References:
    Beyer et al. 2022, "Knowledge distillation: a good teacher is patient and consistent": over
    hundreds of epochs, answers to the very view that the student sees are better than fixed ones.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipelines.atomic import file_sha256, write_bytes
from pipelines.backbones.heads import Classifier, make_network
from pipelines.backbones.spec import backbone, backbones
from pipelines.backbones.weights import load_imagenet
from pipelines.card import DEFAULT_KIND
from pipelines.config.train import DistillParams, TrainParams
from pipelines.data.loaders import Pictures
from pipelines.data.manifest import preprocess_of
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess
from pipelines.errors import ConfigError, DataError, PipelineError
from pipelines.paths import Paths
from pipelines.training.batches import Split
from pipelines.training.float_model import load_float_model
from pipelines.training.full import outputs_of

_LOG = logging.getLogger(__name__)

#: Pixels, (n, h, w, 3) bytes, as a network of some mean and standard deviation takes them.
Normalise = Callable[[Tensor, Sequence[float], Sequence[float]], Tensor]


@dataclass(frozen=True, slots=True)
class Logits:
    """A teacher's answers.

    Attributes:
        paths: (n,) of the pictures, relative to the task's raw folder.
        labels: (c,), in the order of the columns.
        logits: (n, c), finite.
    """

    paths: list[str]
    labels: list[str]
    logits: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """An .npz file of the three arrays, by their names."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            paths=np.array(self.paths, dtype=np.str_),
            labels=np.array(self.labels, dtype=np.str_),
            logits=self.logits,
        )
        return buffer.getvalue()

    def of(self, paths: Sequence[str], labels: Sequence[str], what: str) -> NDArray[np.float32]:
        """(n, c) of some pictures, in the order of some labels, which are its own.

        Raises:
            DataError: if it does not know a picture.
        """
        row_of = {path: row for row, path in enumerate(self.paths)}
        missing = [path for path in paths if path not in row_of]
        if missing:
            raise DataError(
                f"{what}: has no logits of {len(missing)} of {len(paths)} pictures that are "
                f"trained on (the first: {missing[0]!r}). Make the file anew, of all of them."
            )
        columns = [self.labels.index(label) for label in labels]
        return self.logits[[row_of[path] for path in paths]][:, columns]


def read_logits(path: Path) -> Logits:
    """A file of logits.

    Raises:
        DataError: if it cannot be read, or its arrays do not belong together.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            paths, labels = (arrays[name].astype(np.str_) for name in ("paths", "labels"))
            logits = arrays["logits"].astype(np.float32)
        if logits.shape != (len(paths), len(labels)) or not np.isfinite(logits).all():
            raise ValueError(
                f"logits are {logits.shape}, finite: {np.isfinite(logits).all()}; there are "
                f"{len(paths)} paths and {len(labels)} labels"
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as err:
        raise DataError(
            f"{path}: is no file of logits ({' '.join(str(err).split())[:200]}). Expected an .npz "
            f"of paths (n,), labels (c,) and finite logits (n, c)."
        ) from err
    return Logits(paths.tolist(), labels.tolist(), logits)


@dataclass(frozen=True, slots=True)
class Asked:
    """A network that answers.

    Attributes:
        preprocess: the plain view that it takes.
        mean: RGB, of pixels in [0, 1], as std.
        labels: in the order of its outputs; None where these are a vector.
        data_sha256: of the images and splits that it was trained on; None if not on a task's.
    """

    model: Classifier
    preprocess: Preprocess
    mean: Sequence[float]
    std: Sequence[float]
    labels: Sequence[str] | None
    data_sha256: str | None


@dataclass(frozen=True, slots=True)
class Teacher:
    """A network, or the logits that are known of one.

    Attributes:
        name: as params name it.
        sha256: of its weights, or of the file of logits.
    """

    name: str
    sha256: str
    source: Logits | Asked


def read_teachers(
    params: DistillParams, labels: Sequence[str], data_sha256: str, root: Path
) -> list[Teacher]:
    """The teachers of a classification that params name.

    A warning tells of one that was trained on another split: test pictures of this one may have
    been among its own, and what it says would carry them over.

    Args:
        labels: that are to be learned; a teacher may have them in another order.
        data_sha256: of the images and splits that are trained on.
        root: what relative names are relative to.

    Raises:
        ConfigError: if a teacher is not there, or of another kind, or has other labels.
        BundleError: if a float model is damaged.
        DataError: if a file of logits is.
    """
    teachers = []
    for name in params.teacher:
        teacher = _read(name, root / name, DEFAULT_KIND)
        known = teacher.source.labels or ()
        if sorted(known) != sorted(labels):
            raise ConfigError(
                f"params.yaml: train.distill.teacher: {name} has the labels "
                f"{', '.join(known)}; expected {', '.join(labels)}. Name a teacher of the "
                f"same labels."
            )
        _warn_of_others(teacher, data_sha256)
        teachers.append(teacher)
    return teachers


def read_vector_teachers(
    params: TrainParams, kind: str, reading: Reading, data_sha256: str, paths: Paths, root: Path
) -> list[Teacher]:
    """The teachers of vectors that params name.

    Args:
        params: name them, and say what a view takes away: a backbone sees the student's, at the
            side that its weights were trained at.
        kind: of the task, and of a teacher that is a float model.
        data_sha256: as for `read_teachers`, as root.
        paths: of pretrained weights.

    Raises:
        ConfigError: if a teacher is not there, or of another kind.
        WeightsError: if a backbone's weights cannot be had.
        BundleError: if a float model is damaged.
        DataError: if a file of vectors is.
    """
    assert params.distill is not None
    teachers = []
    for name in params.distill.teacher:
        if name in backbones():
            teacher = _of_backbone(name, params, reading, paths)
        else:
            teacher = _read(name, root / name, kind)
        _warn_of_others(teacher, data_sha256)
        teachers.append(teacher)
    return teachers


def _of_backbone(name: str, params: TrainParams, reading: Reading, paths: Paths) -> Teacher:
    network = backbone(name)
    weights = load_imagenet(name, paths.weights_dir)
    model = make_network(network, nn.Identity, cut=None, seed=0)
    model.blocks.load_state_dict(weights.tensors)
    expected = network.input
    seen = params.model_copy(update={"image_px": expected.px})
    preprocess = preprocess_of(seen, reading, expected.interpolation)
    asked = Asked(model.eval(), preprocess, expected.mean, expected.std, None, None)
    return Teacher(name, weights.sha256, asked)


def _warn_of_others(teacher: Teacher, data_sha256: str) -> None:
    if isinstance(teacher.source, Asked) and teacher.source.data_sha256 not in (None, data_sha256):
        _LOG.warning(
            "teacher %s was trained on other images or another split: it may have seen what "
            "is tested here",
            teacher.name,
        )


def _read(name: str, path: Path, kind: str) -> Teacher:
    if path.suffix == ".npz" and path.is_file():
        return Teacher(name, file_sha256(path), read_logits(path))
    if not (path / "model.json").is_file():
        of_backbone = "" if kind == DEFAULT_KIND else "the name of a backbone with weights, or "
        raise ConfigError(
            f"params.yaml: train.distill.teacher: there is no teacher {name}. Expected "
            f"{of_backbone}a folder with model.json and weights.safetensors, or an .npz of "
            f"logits. Train it first, or set train.distill to null."
        )
    meta, model, sha256 = load_float_model(path)
    if meta.kind != kind:
        raise ConfigError(
            f"params.yaml: train.distill.teacher: {name} is of kind {meta.kind!r}; expected "
            f"{kind!r}. Name a teacher of the task's kind."
        )
    labels = meta.labels if kind == DEFAULT_KIND else None
    asked = Asked(model, meta.preprocess, meta.mean, meta.std, labels, meta.data_sha256)
    return Teacher(name, sha256, asked)


def taught(
    split: Split,
    labels: Sequence[str],
    teachers: Sequence[Teacher],
    temperature: float,
    cache_dir: Path,
    normalise: Normalise,
) -> Split:
    """A split with the mean of what its teachers say of each picture, softened by a temperature.

    Raises:
        DataError: if a file of logits lacks a picture.
        CorruptImageError: if an image changed since `prepare`.
        StorageError: if the disk is full.
    """
    paths = [entry.path for entry in split.pictures.entries]
    answers = [
        _answers(teacher, split, cache_dir, normalise).of(paths, labels, teacher.name)
        for teacher in teachers
    ]
    softened = torch.softmax(torch.from_numpy(np.stack(answers)) / temperature, dim=2)
    return replace(split, soft_targets=softened.mean(dim=0))


def taught_by_vectors(
    split: Split, teachers: Sequence[Teacher], cache_dir: Path, normalise: Normalise
) -> Split:
    """A split with its teachers' vectors, side by side: cosines are the mean of the teachers'.

    Raises:
        DataError: if a file of vectors lacks a picture.
        CorruptImageError: if an image changed since `prepare`.
        StorageError: if the disk is full.
    """
    paths = [entry.path for entry in split.pictures.entries]
    found = [(teacher, _answers(teacher, split, cache_dir, normalise)) for teacher in teachers]
    vectors = [
        functional.normalize(torch.from_numpy(each.of(paths, each.labels, teacher.name)), dim=1)
        for teacher, each in found
    ]
    return replace(split, soft_targets=torch.cat(vectors, dim=1) / len(vectors) ** 0.5)


def _answers(teacher: Teacher, split: Split, cache_dir: Path, normalise: Normalise) -> Logits:
    if isinstance(teacher.source, Logits):
        return teacher.source
    asked, own = teacher.source, split.pictures
    pictures = Pictures(own.raw_dir, own.entries, asked.preprocess, None, own.seed)
    digest = hashlib.sha256(f"{teacher.sha256} {pictures.preprocess} {torch.__version__}".encode())
    for entry in own.entries:
        digest.update(f"{entry.path}\t{entry.sha256}\n".encode())
    kept = cache_dir / f"{digest.hexdigest()[:24]}.npz"
    if kept.is_file():
        try:
            return read_logits(kept)
        except PipelineError:
            _LOG.warning("%s: cannot be read, and is made anew", kept)
    _LOG.info("%d pictures through the teacher %s", len(own.entries), teacher.name)
    with torch.inference_mode():
        outputs = outputs_of(
            asked.model,
            Split(pictures, split.truth),
            lambda pixels: normalise(pixels, asked.mean, asked.std),
        )
    logits = outputs.numpy()
    # The numbers of a vector have no names but their places.
    labels = list(asked.labels or map(str, range(logits.shape[1])))
    found = Logits([entry.path for entry in own.entries], labels, logits)
    write_bytes(kept, found.to_bytes())
    return found

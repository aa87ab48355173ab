"""What `evaluate` asks of a kind, and who answers: metrics with intervals, tables, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry
from pipelines.data.preprocess import Geometry
from pipelines.kinds.classification.evaluate import TestedClassification
from pipelines.kinds.detection.evaluate import TestedDetection
from pipelines.kinds.embedding.evaluate import TestedEmbedding
from pipelines.kinds.segmentation.evaluate import TestedSegmentation
from pipelines.metrics.certainty import Certainty, Gain
from pipelines.metrics.intervals import Draws
from pipelines.progress import track
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.bundle import Bundle
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import Precision

T = TypeVar("T")
#: From a file to an upright picture, and what leads from px of the file's to px of the input.
See: TypeAlias = Callable[[Predictor[Any], Path], tuple[Image.Image, Geometry]]


@dataclass(frozen=True, slots=True)
class Answers:
    """What one file says about the test split, or both; in the way of the test split, of others.

    Attributes:
        bundle: of the model.
        entries: n images.
        outputs: by precision and name; the first axis is n.
        geometry: (n, 3, 3) from px of each upright picture to px of the model's input.
        raw_dir: of the task, where a kind's truth lies in files.
        train: images that the model was trained on, for what is reached without a look.
        train_dir: where those lie, if not in ``raw_dir``.
        name: of the images, in words.
        is_ood: (n,) whether the served file refuses; None without abstention.
    """

    bundle: Bundle
    entries: Sequence[Entry]
    outputs: Mapping[Precision, Mapping[str, NDArray[np.float32]]]
    is_ood: NDArray[np.bool_] | None
    geometry: NDArray[np.float64]
    raw_dir: Path
    train: Sequence[Entry] = ()
    train_dir: Path | None = None
    name: str = "the test split"
    _made: dict[object, object] = field(default_factory=dict, init=False, repr=False)

    @property
    def only(self) -> Precision:
        """Of answers of one file, which it is."""
        (precision,) = self.outputs
        return precision

    def once(self, make: Callable[[Answers], T]) -> T:
        """What is made of the answers, at the first question that rests on it."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast("T", self._made[make])


def answered(
    predictors: Mapping[Precision, Predictor[Any]],
    entries: Sequence[Entry],
    raw_dir: Path,
    train: Sequence[Entry] = (),
    *,
    see: See | None = None,
    doing: str = "testing",
) -> Answers:
    """What files of one bundle say of images; each is decoded once and goes through each alone.

    Args:
        predictors: of one bundle.
        see: opens a file; as the predictor itself does by default.
        doing: in words, for the bar.

    Raises:
        CorruptImageError: if a picture cannot be used.
    """
    parts: dict[Precision, list[dict[str, NDArray[np.float32]]]] = {key: [] for key in predictors}
    any_of, places = next(iter(predictors.values())), []
    bundle = any_of.bundle
    for entry in track(entries, f"{bundle.task}: {doing}", len(entries)):
        path = raw_dir / entry.path
        picture, geometry = (see or _opened)(any_of, path)
        places.append(geometry)
        pixels = any_of.pixels(picture, name=str(path))[np.newaxis]
        for precision, predictor in predictors.items():
            parts[precision].append(predictor.outputs(pixels))
    outputs = {
        precision: {name: np.concatenate([each[name] for each in found]) for name in found[0]}
        for precision, found in parts.items()
    }
    served = bundle.served.precision if bundle.served.precision in outputs else next(iter(outputs))
    judge = predictors[served].out_of_distribution
    is_ood = judge.judge(outputs[served][EMBEDDING_NAME])[1] if judge else None
    return Answers(bundle, entries, outputs, is_ood, np.stack(places), raw_dir, train)


def _opened(predictor: Predictor[Any], path: Path) -> tuple[Image.Image, Geometry]:
    opened = predictor.opened(path)
    return opened.rgb, predictor.geometry(opened)


class TestedKind(Protocol):
    """A kind, as far as `evaluate` must know it."""

    def unknown(self, entries: Sequence[Entry], bundle: Bundle) -> str | None:
        """What the images have that the model cannot answer with, in words; None if nothing."""

    def metrics(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """By precision its metrics; beside them ``agreement`` and what int8 loses."""

    def trust(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """What was fitted on val, measured on the test split; for the served file."""

    def certainty(self, answers: Answers, draws: Draws, params: EvaluateParams) -> Certainty:
        """The metrics' intervals, and those of int8 against fp32 in pairs.

        Args:
            draws: of the test split's groups; the same for every metric.
        """

    def tables(self, answers: Answers) -> tuple[str, str]:
        """The texts of predictions.csv, and of confusion.csv (``actual,predicted``) with its rows.

        A kind that confuses nothing gives the header alone.
        """

    def figures(self, answers: Answers, params: EvaluateParams) -> dict[str, bytes]:
        """PNG files by name."""

    def gains(self, one: Answers, other: Answers, draws: Draws) -> dict[str, Gain]:
        """What a second model gains over a first on the same images, by metric.

        Args:
            one: what one file of a model says.
            other: the same images, of another model.
            draws: of their groups.
        """

    #: What `kept` is a share of, in words.
    kept_of: str

    def kept(self, before: Answers, after: Answers) -> NDArray[np.float64]:
        """(n,) share of each image's answer that is still given, in [0, 1].

        Args:
            before: what one file says of the images.
            after: the same file, of the images changed; its geometry, too, leads from px of the
                images as they were, and may turn and mirror.
        """

    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """The served file in one line, for the log."""


KINDS: Mapping[str, TestedKind] = {
    "classification": TestedClassification(),
    "detection": TestedDetection(),
    "segmentation": TestedSegmentation(),
    "embedding": TestedEmbedding(),
}

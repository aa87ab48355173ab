"""What `evaluate` asks of a kind, and who answers: metrics with intervals, tables, figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry
from pipelines.kinds.classification.evaluate import TestedClassification
from pipelines.kinds.detection.evaluate import TestedDetection
from pipelines.kinds.embedding.evaluate import TestedEmbedding
from pipelines.kinds.segmentation.evaluate import TestedSegmentation
from pipelines.metrics.certainty import Certainty
from pipelines.metrics.intervals import Draws
from pipelines.serving.bundle import Bundle
from pipelines.serving.sessions import Precision

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answers:
    """What the two files say about the test split.

    Attributes:
        bundle: of the model.
        entries: n images.
        outputs: by precision and name; the first axis is n.
        geometry: (n, 3, 3) from px of each upright picture to px of the model's input.
        raw_dir: of the task, where a kind's truth lies in files.
        train: images that the model was trained on, for what is reached without a look.
        is_ood: (n,) whether the served file refuses; None without abstention.
    """

    bundle: Bundle
    entries: Sequence[Entry]
    outputs: Mapping[Precision, Mapping[str, NDArray[np.float32]]]
    is_ood: NDArray[np.bool_] | None
    geometry: NDArray[np.float64]
    raw_dir: Path
    train: Sequence[Entry] = ()
    _made: dict[object, object] = field(default_factory=dict, init=False, repr=False)

    def once(self, make: Callable[[Answers], T]) -> T:
        """What is made of the answers, at the first question that rests on it."""
        if make not in self._made:
            self._made[make] = make(self)
        return cast("T", self._made[make])


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

    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """The served file in one line, for the log."""


KINDS: Mapping[str, TestedKind] = {
    "classification": TestedClassification(),
    "detection": TestedDetection(),
    "segmentation": TestedSegmentation(),
    "embedding": TestedEmbedding(),
}

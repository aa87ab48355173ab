"""The questions that the stages put to a kind; each stage has its table of who answers them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipelines.card import DatasetCard
    from pipelines.config.evaluate import EvaluateParams
    from pipelines.config.export import ExportParams
    from pipelines.data.manifest import Entry
    from pipelines.export.attempts import Judge
    from pipelines.metrics.certainty import Certainty
    from pipelines.metrics.intervals import Draws
    from pipelines.serving.bundle import Bundle, TensorSpec
    from pipelines.serving.sessions import Precision


class ExportedKind(ABC):
    """A kind, as far as `export` must know it."""

    @abstractmethod
    def truth(self, entries: Sequence[Entry], labels: Sequence[str]) -> NDArray[Any]:
        """What is true of each image.

        Args:
            entries: n images.
            labels: that the model knows, in the order of its outputs.

        Returns:
            The first axis is n.
        """

    @abstractmethod
    def outputs(self, labels: Sequence[str], n_features: int) -> tuple[TensorSpec, ...]:
        """What the model gives, in the order of the serving half.

        Args:
            labels: that the model knows.
            n_features: length of its embedding.
        """

    @abstractmethod
    def judge(
        self, reference: NDArray[np.float32], truth: NDArray[Any], params: ExportParams
    ) -> Judge:
        """Measures what another file says against what fp32 says.

        Args:
            reference: first output of fp32 on val.
            truth: of the same images.
            params: with the bounds that an int8 file must hold.
        """

    @abstractmethod
    def fitted(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        truth: NDArray[Any],
        card: DatasetCard,
        labels: Sequence[str],
        params: ExportParams,
    ) -> dict[str, Any]:
        """The keys of the bundle that are fitted on val, for the file that is served.

        Args:
            outputs: by name, of a network that has not seen val.
            truth: of the same images.
            card: of the data set.
            labels: that the model knows, in the order of its outputs.
            params: what is asked of the fit.

        Raises:
            DataError: if an output is not finite, or nothing fits.
        """


@dataclass(frozen=True, slots=True)
class Answers:
    """What the two files say about the test split.

    Attributes:
        bundle: of the model.
        entries: n images.
        outputs: by precision and name; the first axis is n.
        is_ood: (n,) whether the served file refuses; None without abstention.
    """

    bundle: Bundle
    entries: Sequence[Entry]
    outputs: Mapping[Precision, Mapping[str, NDArray[np.float32]]]
    is_ood: NDArray[np.bool_] | None


class TestedKind(ABC):
    """A kind, as far as `evaluate` must know it."""

    #: Or pytest would look for tests in it.
    __test__ = False

    @abstractmethod
    def unknown(self, entries: Sequence[Entry], bundle: Bundle) -> str | None:
        """What the images have that the model cannot answer with, in words; None if nothing.

        Args:
            entries: of the test split.
            bundle: of the model.
        """

    @abstractmethod
    def metrics(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """By precision its metrics; beside them ``agreement`` and what int8 loses.

        Args:
            answers: of the test split.
            params: the task's ``evaluate`` section.
        """

    @abstractmethod
    def trust(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """What was fitted on val, measured on the test split; for the served file.

        Args:
            answers: of the test split.
            params: the task's ``evaluate`` section.
        """

    @abstractmethod
    def certainty(self, answers: Answers, draws: Draws, params: EvaluateParams) -> Certainty:
        """The metrics' intervals, and those of int8 against fp32 in pairs.

        Args:
            answers: of the test split.
            draws: of its groups; the same for every metric.
            params: the task's ``evaluate`` section.
        """

    @abstractmethod
    def tables(self, answers: Answers) -> tuple[str, str]:
        """The texts of predictions.csv and of confusion.csv.

        Args:
            answers: of the test split.
        """

    @abstractmethod
    def figures(self, answers: Answers, params: EvaluateParams) -> dict[str, bytes]:
        """PNG files by name.

        Args:
            answers: of the test split.
            params: the task's ``evaluate`` section.
        """

    @abstractmethod
    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """The served file in one line, for the log.

        Args:
            metrics: metrics.json.
            certainty: of the same answers.
        """

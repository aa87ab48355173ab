"""The half of `classification` that `export` asks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.card import DatasetCard
from pipelines.config.export import ExportParams
from pipelines.export.attempts import Judge, Judgement
from pipelines.export.graphs import EMBEDDING_MEANING
from pipelines.metrics.calibration import fit_temperature, operating_point
from pipelines.metrics.classification import accuracy, agreement, macro_f1
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME, softmax

_LOG = logging.getLogger(__name__)


class ExportedClassification:
    """Classes as numbers, in the order of the logits."""

    meanings: Mapping[str, str] = MappingProxyType(
        {
            LOGITS_NAME: "one a label; softmax after division by the temperature gives "
            "probabilities",
            EMBEDDING_NAME: EMBEDDING_MEANING,
        }
    )

    def finished(self, model: bytes) -> bytes:
        """As it is: what logits mean, the serving half says."""
        return model

    def compared(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities."""
        return softmax(outputs)

    def judge(
        self, reference: NDArray[np.float32], truth: NDArray[np.int64], params: ExportParams
    ) -> Judge:
        """By the bounds of params on agreement, accuracy and macro-F1."""
        of_fp32 = _measured(reference, truth)

        def judged(logits: NDArray[np.float32]) -> Judgement:
            same = round(agreement(reference, logits), 6)
            metrics = {name: round(value, 6) for name, value in _measured(logits, truth).items()}
            asked = {
                f"agreement with fp32 {same:.1%} (bound {params.min_agreement:.1%})": (
                    same >= params.min_agreement
                ),
            }
            for name, words, bound in (
                ("accuracy", "accuracy", params.max_accuracy_drop),
                ("macro_f1", "macro-F1", params.max_macro_f1_drop),
            ):
                drop = of_fp32[name] - metrics[name]
                if bound is not None:
                    asked[f"drop of {words} {drop:.4f} (bound {bound:g})"] = drop <= bound
            return Judgement(
                same, metrics, tuple(words for words, holds in asked.items() if not holds)
            )

        return judged

    def fitted(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        truth: NDArray[np.int64],
        card: DatasetCard,
        labels: Sequence[str],
        params: ExportParams,
    ) -> dict[str, Any]:
        """Temperature, and operating points of the alarms where they are asked for."""
        logits = outputs[LOGITS_NAME]
        temperature = fit_temperature(logits, truth)
        points = {}
        if params.min_specificity is not None:
            probabilities = softmax(logits, temperature)
            points = {
                label: operating_point(
                    probabilities[:, index], truth == index, params.min_specificity
                )
                for index, label in enumerate(labels)
                if label in card.alarms
            }
        _LOG.info("temperature %.3f", temperature)
        return {"temperature": temperature, "operating_points": points}


def _measured(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, float]:
    answers = logits.argmax(axis=1)
    return {
        "accuracy": accuracy(truth, answers),
        "macro_f1": macro_f1(truth, answers, logits.shape[1]),
    }

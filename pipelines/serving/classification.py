"""The serving half of the kind `classification`: logits become a label with probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pipelines.columns import table
from pipelines.serving.answer import EMBEDDING_NAME, Answer, ServedKind

if TYPE_CHECKING:
    from pipelines.data.preprocess import Geometry
    from pipelines.serving.bundle import Bundle


LOGITS_NAME = "logits"
#: Labels that a terminal shows for one picture.
_SHOWN_LABELS = 5


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities of logits.

    Args:
        logits: (n, n_classes).
        temperature: > 0; logits are divided by it (Guo et al. 2017, "On calibration of modern
            neural networks").

    Returns:
        (n, n_classes), rows add up to 1.
    """
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(
        np.float32
    )
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction(Answer):
    """The answer for one picture.

    Attributes:
        label: the most probable label.
        probabilities: by label, in the bundle's order; they add up to 1.
        positives: by label with an operating point, whether its probability reaches it; empty where
            the bundle has none.
    """

    label: str
    probabilities: dict[str, float]
    positives: dict[str, bool]


class ServedClassification(ServedKind[Prediction]):
    """One of the bundle's labels for the whole picture."""

    outputs = (LOGITS_NAME, EMBEDDING_NAME)
    is_explained = True

    @override
    def check_labels(self, labels: Sequence[str]) -> None:
        if len(labels) < 2:
            raise ValueError(f"labels: a classification needs at least 2, got {len(labels)}")

    @override
    def check(self, bundle: Bundle) -> None:
        labels = set(bundle.labels)
        for key in ("operating_points", "label_names"):
            unknown = sorted(set(getattr(bundle, key)) - labels)
            if unknown:
                raise ValueError(f"{key} names no label: {', '.join(unknown)}")
        shape, expected = bundle.output(LOGITS_NAME).shape, (-1, len(bundle.labels))
        if shape != expected:
            raise ValueError(
                f"outputs.{LOGITS_NAME}.shape: expected {list(expected)}, one a label, got "
                f"{list(shape)}"
            )

    @override
    def decode(
        self, outputs: Mapping[str, NDArray[np.float32]], bundle: Bundle, geometry: Geometry
    ) -> Prediction:
        row = softmax(outputs[LOGITS_NAME][np.newaxis], bundle.temperature)[0]
        probabilities = dict(zip(bundle.labels, map(float, row), strict=True))
        return Prediction(
            label=bundle.labels[int(row.argmax())],
            probabilities=probabilities,
            positives={
                label: probabilities[label] >= point.threshold
                for label, point in bundle.operating_points.items()
            },
        )

    @override
    def lines(self, answer: Prediction, bundle: Bundle) -> list[str]:
        ranked = sorted(answer.probabilities.items(), key=lambda item: (-item[1], item[0]))
        rows = [
            (bundle.name_of(label), f"{probability:.3f}", bundle.label_meanings.get(label, ""))
            for label, probability in ranked[:_SHOWN_LABELS]
        ]
        lines = [table(("LABEL", "PROBABILITY", "MEANING"), rows)]
        if len(ranked) > _SHOWN_LABELS:
            lines.append(f"and {len(ranked) - _SHOWN_LABELS} more labels (--json shows all)")
        return lines if answer.is_ood else [*lines, *_calls(bundle, answer)]

    @override
    def columns(self, bundle: Bundle) -> list[str]:
        return ["label", *self.numbers(bundle)]

    @override
    def cells(self, answer: Prediction, bundle: Bundle) -> list[str]:
        return [answer.label, *(f"{answer.probabilities[label]:.6f}" for label in bundle.labels)]

    @override
    def numbers(self, bundle: Bundle) -> list[str]:
        return [f"probability_{label}" for label in bundle.labels]

    @override
    def document(self, answer: Prediction, bundle: Bundle) -> dict[str, Any]:
        return {
            "label": answer.label,
            "name": bundle.name_of(answer.label),
            "probabilities": answer.probabilities,
            "positives": answer.positives,
        }


def _calls(bundle: Bundle, prediction: Prediction) -> list[str]:
    """One line a label with an operating point: yes or no, and what that is worth."""
    return [
        f"{bundle.name_of(label)}: {'yes' if is_yes else 'no'} (yes from {point.threshold:.3f}; on "
        f"val that found {point.sensitivity:.0%} and said no to {point.specificity:.0%} of the "
        f"others)"
        for label, is_yes in prediction.positives.items()
        for point in [bundle.operating_points[label]]
    ]

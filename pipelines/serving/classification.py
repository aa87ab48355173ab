"""From logits to probabilities.

The serving half of the kind `classification`: logits become a label with probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from pipelines.serving.answer import EMBEDDING_NAME, Answer, ServedKind

if TYPE_CHECKING:
    from pipelines.data.preprocess import Geometry
    from pipelines.serving.bundle import Bundle


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


# -- classification -------------------------------------------------------------------------------
LOGITS_NAME = "logits"


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

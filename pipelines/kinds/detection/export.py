"""The half of `detection` that `export` asks: boxes in the file, and what int8 must keep."""

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
from pipelines.kinds.detection.decoding import decoded, finished
from pipelines.kinds.detection.train import ap50
from pipelines.metrics.detection import (
    OVERLAPS,
    agreement,
    best_point,
    count_band,
    counts,
    matches,
    mean_agreement,
    true_counts,
)
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.detection import BOXES_NAME, DEFAULT_THRESHOLD
from pipelines.serving.trust import BoxPoint

_LOG = logging.getLogger(__name__)


class ExportedDetection:
    """Decoding and non-maximum suppression stand behind what is quantised."""

    meanings: Mapping[str, str] = MappingProxyType(
        {
            BOXES_NAME: "the most certain first: x0, y0, x1, y1 as shares of the input's side, "
            "score in [0, 1] (0: none), number of the label",
            EMBEDDING_NAME: EMBEDDING_MEANING,
        }
    )

    def finished(self, model: bytes) -> bytes:
        """With boxes in the place of what the head says."""
        return finished(model)

    def compared(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Middles, logarithms of the sides, and probabilities."""
        scores = 1 / (1 + np.exp(-outputs[..., 4:].astype(np.float64)))
        return np.concatenate([outputs[..., :4], scores.astype(np.float32)], axis=-1)

    def judge(
        self, reference: NDArray[np.float32], truth: NDArray[np.float32], params: ExportParams
    ) -> Judge:
        """By the share of boxes that both tell of, from the thresholds on that fit fp32."""
        n_labels = reference.shape[2] - 4
        of_fp32 = decoded(reference)
        points = [best_point(of) for of in matches(of_fp32, truth, n_labels, OVERLAPS[:1])]
        thresholds = [DEFAULT_THRESHOLD if point is None else point.threshold for point in points]

        def judged(outputs: NDArray[np.float32]) -> Judgement:
            found = decoded(outputs)
            same = mean_agreement(agreement(of_fp32, found, thresholds))
            metrics = {"ap50": ap50(found, truth, n_labels)}
            return Judgement.of(same, metrics, params.min_agreement)

        return judged

    def fitted(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        truth: NDArray[np.float32],
        card: DatasetCard,
        labels: Sequence[str],
        params: ExportParams,
    ) -> dict[str, Any]:
        """By label the threshold of the best F1, and how far counts are off then, on val.

        None for a label of which val shows no box.
        """
        found = outputs[BOXES_NAME]
        each = matches(found, truth, len(labels), OVERLAPS[:1])
        best = [best_point(of) for of in each]
        thresholds = [1.0 if point is None else round(point.threshold, 6) for point in best]
        missing = true_counts(truth, len(labels)) - counts(found, thresholds, len(labels))
        points = {}
        for label, of, point, off in zip(labels, each, best, missing.T, strict=True):
            if point is None:
                _LOG.warning("%s: no box of val was found; %.1f is its threshold", label, 0.5)
                continue
            points[label] = BoxPoint(
                threshold=round(point.threshold, 6),
                recall=round(point.recall, 6),
                precision=round(point.precision, 6),
                n_boxes=int(of.n_true.sum()),
                count_band=count_band(off),
            )
        told = ", ".join(f"{label} {point.threshold:.2f}" for label, point in points.items())
        _LOG.info("thresholds: %s", told)
        return {"box_points": points}

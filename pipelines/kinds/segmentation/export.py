"""The half of `segmentation` that `export` asks: maps as large as the input, and thresholds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ValueInfoProto, helper, numpy_helper

from pipelines.card import DatasetCard
from pipelines.config.export import ExportParams
from pipelines.errors import DataError
from pipelines.export.attempts import Judge, Judgement
from pipelines.export.graphs import EMBEDDING_MEANING, with_output
from pipelines.kinds.segmentation.train import at_cells
from pipelines.metrics.segmentation import STEPS, best_threshold, mean_dice, mean_iou
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.segmentation import MASK_NAME, THRESHOLD
from pipelines.serving.trust import OperatingPoint

_LOG = logging.getLogger(__name__)


class ExportedSegmentation:
    """Masks of val, at the cells in which training has them."""

    meanings: Mapping[str, str] = MappingProxyType(
        {
            MASK_NAME: "of each label and pixel of the input, the probability that it shows the "
            "label",
            EMBEDDING_NAME: EMBEDDING_MEANING,
        }
    )

    def finished(self, model: bytes) -> bytes:
        """Logits enlarged to the input's size, then a sigmoid, in float32 whatever the precision.

        The number of times stands in the file, which `serving.vetting` bounds.
        """
        return with_output(model, _enlarged)

    def compared(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities."""
        said: NDArray[np.float32] = torch.sigmoid(torch.from_numpy(outputs)).numpy()
        return said

    def judge(
        self, reference: NDArray[np.float32], truth: NDArray[Any], params: ExportParams
    ) -> Judge:
        """By the mean IoU of int8's masks with those of fp32."""
        cells = truth.shape[-2:]
        shown, of_fp32 = truth >= THRESHOLD, _shown(reference, cells)

        def judged(logits: NDArray[np.float32]) -> Judgement:
            found = _shown(logits, cells)
            metrics = {"dice": mean_dice(found, shown), "iou": mean_iou(found, shown)}
            same, least = mean_iou(found, of_fp32), params.min_agreement
            return Judgement.of(same, metrics, least, "IoU with the masks of fp32")

        return judged

    def fitted(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        truth: NDArray[Any],
        card: DatasetCard,
        labels: Sequence[str],
        params: ExportParams,
    ) -> dict[str, Any]:
        """The threshold of each label that gives the best mean Dice."""
        said = outputs[MASK_NAME]
        if not np.isfinite(said).all():
            raise DataError("the masks of val are not finite, so that no threshold fits.")
        n, side = len(said), truth.shape[-1]
        times = said.shape[-1] // side
        cells = said.reshape(n, len(labels), side, times, side, times).mean(axis=(3, 5))
        points = {
            label: _point(cells[:, at], truth[:, at] >= THRESHOLD)
            for at, label in enumerate(labels)
        }
        _LOG.info("thresholds: %s", ", ".join(f"{k} {p.threshold:g}" for k, p in points.items()))
        return {"operating_points": points}


def _enlarged(graph: GraphProto, given: ValueInfoProto) -> ValueInfoProto:
    side_px = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    places = given.type.tensor_type.shape.dim
    times = side_px / places[2].dim_value
    scales = numpy_helper.from_array(np.array([1, 1, times, times], np.float32), "mask_scales")
    graph.initializer.append(scales)
    graph.node.extend(
        [
            helper.make_node(
                "Resize",
                [LOGITS_NAME, "", scales.name],
                ["mask_logits"],
                "mask_logits",
                mode="linear",
                coordinate_transformation_mode="half_pixel",
            ),
            helper.make_node("Sigmoid", ["mask_logits"], [MASK_NAME], MASK_NAME),
        ]
    )
    given.name = MASK_NAME
    places[2].dim_value = places[3].dim_value = side_px
    return given


def _shown(logits: NDArray[np.float32], cells: Sequence[int]) -> NDArray[np.bool_]:
    # A probability of 0.5 is a logit of 0.
    enlarged = at_cells(torch.from_numpy(logits), cells).numpy()
    shown: NDArray[np.bool_] = enlarged >= 0
    return shown


def _point(said: NDArray[np.float32], shown: NDArray[np.bool_]) -> OperatingPoint:
    """The threshold, and what it says of the cells of val."""
    threshold = best_threshold(said, shown, STEPS)
    found, there = said >= threshold, shown.any(axis=(1, 2))

    def share(right: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
        return float((right & of).sum() / max(int(of.sum()), 1))

    return OperatingPoint(
        threshold=threshold,
        # None was asked for: Dice has chosen.
        min_specificity=0.0,
        sensitivity=share(found, shown),
        specificity=share(~found, ~shown),
        n_positive=int(there.sum()),
        n_negative=int((~there).sum()),
    )

"""The half of `embedding` that `export` asks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from pipelines.card import DatasetCard
from pipelines.config.export import ExportParams
from pipelines.errors import DataError
from pipelines.export.attempts import Judge, Judgement
from pipelines.metrics.retrieval import (
    Known,
    agreements,
    bound_for,
    equal_error_rates,
    pairs_of,
    rates_at,
    recall_at,
    unit,
)
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME
from pipelines.serving.embedding import SAME, VECTOR_NAME, distances
from pipelines.serving.trust import OperatingPoint

_LOG = logging.getLogger(__name__)


class ExportedEmbedding:
    """A vector of unit length."""

    meanings: Mapping[str, str] = MappingProxyType(
        {
            VECTOR_NAME: "of unit length; half of 1 minus the cosine of two is how far two "
            "pictures lie apart",
            EMBEDDING_NAME: "pooled features of the last block, then those that its last depthwise "
            "convolution reads; tells pictures out of distribution",
        }
    )

    def finished(self, model: bytes) -> bytes:
        """With the length made 1, in float32 whatever the file's precision."""
        proto = onnx.load_from_string(model)
        graph = proto.graph
        graph.node.append(
            helper.make_node(
                "LpNormalization", [LOGITS_NAME], [VECTOR_NAME], VECTOR_NAME, axis=1, p=2
            )
        )
        given = next(output for output in graph.output if output.name == LOGITS_NAME)
        given.name = VECTOR_NAME
        onnx.checker.check_model(proto)
        data: bytes = proto.SerializeToString(deterministic=True)
        return data

    def compared(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of unit length."""
        return unit(outputs)

    def judge(self, reference: NDArray[np.float32], truth: Known, params: ExportParams) -> Judge:
        """By the bound of params on agreement, see `agreement`."""
        of_fp32 = _distances(reference)

        def judged(outputs: NDArray[np.float32]) -> Judgement:
            found = _distances(outputs)
            same = round(float(agreements(of_fp32, found, truth).mean()), 6)
            recall = recall_at(found, truth, 1)
            rate = equal_error_rates(pairs_of(found, truth))[0][0]
            metrics = {"recall_at_1": _rounded(np.nanmean(recall)), "eer": _rounded(rate)}
            words = f"agreement with fp32 {same:.1%} (bound {params.min_agreement:.1%})"
            return Judgement(same, metrics, () if same >= params.min_agreement else (words,))

        return judged

    def fitted(
        self,
        outputs: Mapping[str, NDArray[np.float32]],
        truth: Known,
        card: DatasetCard,
        labels: Sequence[str],
        params: ExportParams,
    ) -> dict[str, Any]:
        """The distance up to which two pictures are called the same."""
        vectors = outputs[VECTOR_NAME]
        if not np.isfinite(vectors).all():
            raise DataError("a vector of the val split is not finite. Train again.")
        pairs = pairs_of(distances(vectors, vectors), truth)
        asked = params.min_specificity
        bound = bound_for(pairs, None if asked is None else 1 - asked)
        matches, misses = (float(rate[0]) for rate in rates_at(pairs, bound))
        _LOG.info(
            "called the same up to a distance of %.3f: on val %.1f %% of the pairs of one identity "
            "are, and %.1f %% of the others",
            bound,
            100 * (1 - misses),
            100 * matches,
        )
        n_same = int(pairs.is_same.sum())
        point = OperatingPoint(
            threshold=1 - bound,
            # Null asks for as many errors of one sort as of the other.
            min_specificity=0.0 if asked is None else asked,
            sensitivity=round(1 - misses, 6),
            specificity=round(1 - matches, 6),
            n_positive=n_same,
            n_negative=len(pairs.is_same) - n_same,
        )
        return {"operating_points": {SAME: point}}


def _distances(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    vectors = unit(outputs)
    return distances(vectors, vectors)


def _rounded(value: Any) -> float:
    return round(float(value), 6)

"""The half of `embedding` that `export` asks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ValueInfoProto, helper

from pipelines.card import DatasetCard
from pipelines.config.export import ExportParams
from pipelines.errors import DataError
from pipelines.export.attempts import Judge, Judgement
from pipelines.export.graphs import EMBEDDING_MEANING, with_output
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
            EMBEDDING_NAME: EMBEDDING_MEANING,
        }
    )

    def finished(self, model: bytes) -> bytes:
        """With the length made 1, in float32 whatever the file's precision."""
        return with_output(model, _unit_length)

    def compared(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors of unit length."""
        return unit(outputs)

    def judge(self, reference: NDArray[np.float32], truth: Known, params: ExportParams) -> Judge:
        """By the bound of params on agreement, see `agreement`."""
        of_fp32 = _distances(reference)

        def judged(outputs: NDArray[np.float32]) -> Judgement:
            found = _distances(outputs)
            same = float(agreements(of_fp32, found, truth).mean())
            recall = recall_at(found, truth, 1)
            rate = equal_error_rates(pairs_of(found, truth))[0][0]
            metrics = {"recall_at_1": float(np.nanmean(recall)), "eer": float(rate)}
            return Judgement.of(same, metrics, params.min_agreement)

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


def _unit_length(graph: GraphProto, given: ValueInfoProto) -> ValueInfoProto:
    graph.node.append(
        helper.make_node("LpNormalization", [LOGITS_NAME], [VECTOR_NAME], VECTOR_NAME, axis=1, p=2)
    )
    given.name = VECTOR_NAME
    return given


def _distances(outputs: NDArray[np.float32]) -> NDArray[np.float64]:
    vectors = unit(outputs)
    return distances(vectors, vectors)

"""What makes a served file trustworthy: how sure it is, where an alarm starts, what is foreign.

Chosen on val, for the file that is served. Called by `export`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Set

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from pipelines.backbones.registry import backbone
from pipelines.config.export import ExportParams
from pipelines.data.loaders import Pictures
from pipelines.data.workers import n_workers
from pipelines.export.onnx_export import EMBEDDING_NAME, INPUT_NAME, LOGITS_NAME
from pipelines.metrics.abstention import Before, fit_abstention
from pipelines.metrics.calibration import fit_temperature, operating_point
from pipelines.serving.bundle import Bundle
from pipelines.serving.probabilities import softmax
from pipelines.serving.sessions import make_session

_LOG = logging.getLogger(__name__)

#: Pictures that are answered together.
_BATCH = 16


def trusted(
    bundle: Bundle,
    alarms: Set[str],
    model: bytes,
    known: Pictures,
    val_pixels: NDArray[np.uint8],
    val_class_index: NDArray[np.int64],
    before_refit: bytes | None,
    params: ExportParams,
) -> Bundle:
    """The bundle with temperature, operating points and abstention of the file that it serves.

    A refitted network has seen val: it is too sure of it, and finds it too familiar. How sure it
    is and how far new pictures lie is then asked of the network before the refit.

    Args:
        bundle: without the three.
        alarms: labels that may get an operating point.
        model: bytes of the served file.
        known: the train split's pictures, that what is foreign is told from.
        val_pixels: (n, h, w, 3) plain views of val.
        val_class_index: (n,) to go with them.
        before_refit: bytes of that network in float32; None where there was no refit.
        params: specificity and acceptance asked for.

    Raises:
        DataError: if logits or embeddings are not finite, or no threshold has the specificity.
    """
    models = [model] if before_refit is None else [model, before_refit]
    sessions = [make_session(each, n_workers()) for each in models]
    of_val = _answers(sessions, np.split(val_pixels, range(_BATCH, len(val_pixels), _BATCH)))
    of_known = _answers(sessions, known.batches(_BATCH))
    (_, train_embedding), (_, val_embedding) = of_known[0], of_val[0]
    # The last network is the one that has not seen val.
    logits, unseen_embedding = of_val[-1]
    before = None if before_refit is None else Before(of_known[-1][1], unseen_embedding)
    temperature = fit_temperature(logits, val_class_index)
    probabilities = softmax(logits, temperature)
    points = {}
    if params.min_specificity is not None:
        points = {
            label: operating_point(
                probabilities[:, index], val_class_index == index, params.min_specificity
            )
            for index, label in enumerate(bundle.labels)
            if label in alarms
        }
    n_head = backbone(bundle.provenance.backbone).n_features
    abstention = fit_abstention(
        train_embedding,
        val_embedding,
        params.acceptance,
        widths=(n_head, train_embedding.shape[1] - n_head),
        before=before,
    )
    _LOG.info(
        "%s: temperature %.3f; foreign above %.3f of %s",
        bundle.task,
        temperature,
        abstention.threshold,
        abstention.score,
    )
    return bundle.model_copy(
        update={
            "temperature": temperature,
            "operating_points": points,
            "abstention": abstention,
        }
    )


def _answers(
    sessions: Sequence[InferenceSession], batches: Iterable[NDArray[np.uint8]]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Logits and embeddings of each model; a batch is made once for all of them."""
    names = [LOGITS_NAME, EMBEDDING_NAME]
    parts = [[session.run(names, {INPUT_NAME: batch}) for session in sessions] for batch in batches]
    return [
        (np.concatenate([logits for logits, _ in of_one]), np.concatenate([e for _, e in of_one]))
        for of_one in zip(*parts, strict=True)
    ]

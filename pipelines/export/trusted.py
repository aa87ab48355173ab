"""What makes a served file trustworthy: what its kind fits on val, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.backbones.spec import backbone
from pipelines.config.export import ExportParams
from pipelines.data.loaders import Pictures
from pipelines.data.workers import n_workers
from pipelines.export.onnx_export import INPUT_NAME
from pipelines.metrics.abstention import Before, fit_abstention
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.bundle import Bundle
from pipelines.serving.sessions import make_session

_LOG = logging.getLogger(__name__)

#: Pictures that are answered together.
_BATCH = 16

Outputs = Mapping[str, NDArray[np.float32]]
#: From the outputs for val, the keys of the bundle that a kind fits.
Fit = Callable[[Outputs], dict[str, Any]]
#: A model file as it answers: from names of outputs and (n, h, w, 3) pictures, the outputs.
Ask = Callable[[Sequence[str], NDArray[np.uint8]], Sequence[NDArray[np.float32]]]


def ask_onnx(model: bytes, n_threads: int | None = None) -> Ask:
    """An ONNX file as it answers.

    Args:
        model: its bytes.
        n_threads: that it runs on; None for as many as there are workers.
    """
    session = make_session(model, n_threads or n_workers())
    return lambda names, pixels: session.run(names, {INPUT_NAME: pixels})


def trusted(
    bundle: Bundle,
    fit: Fit,
    model: Ask,
    known: Pictures,
    val_pixels: NDArray[np.uint8],
    before_refit: Ask | None,
    params: ExportParams,
) -> Bundle:
    """The bundle with what its kind fits and the abstention of the file that it serves.

    A refitted network has seen val: it is too sure of it, and finds it too familiar. How sure it
    is and how far new pictures lie is then asked of the network before the refit.

    Args:
        fit: of the kind, for the pictures of val.
        model: the served file.
        known: the train split's pictures, that pictures out of distribution are told from.
        val_pixels: (n, h, w, 3) plain views of val.
        before_refit: that network in float32; None where there was no refit.

    Raises:
        DataError: if embeddings are not finite, or the kind's fit fails.
    """
    models = [model] if before_refit is None else [model, before_refit]
    names = [output.name for output in bundle.outputs]
    of_val = answers_of(models, np.split(val_pixels, range(_BATCH, len(val_pixels), _BATCH)), names)
    of_known = answers_of(models, known.batches(_BATCH), [EMBEDDING_NAME])
    train_embedding = of_known[0][EMBEDDING_NAME]
    # The last network is the one that has not seen val.
    before = None
    if before_refit is not None:
        before = Before(of_known[-1][EMBEDDING_NAME], of_val[-1][EMBEDDING_NAME])
    fitted = fit(of_val[-1])
    made_of = bundle.provenance
    n_head = backbone(made_of.backbone, made_of.width).n_features
    abstention = fit_abstention(
        train_embedding,
        of_val[0][EMBEDDING_NAME],
        params.acceptance,
        widths=(n_head, train_embedding.shape[1] - n_head),
        before=before,
    )
    bound, of = abstention.threshold, abstention.score
    _LOG.info("%s: out of distribution above %.3f of %s", bundle.task, bound, of)
    return bundle.model_copy(update={**fitted, "abstention": abstention})


def answers_of(
    models: Sequence[Ask],
    batches: Iterable[NDArray[np.uint8]],
    names: Sequence[str],
) -> list[dict[str, NDArray[np.float32]]]:
    """Outputs of each model by name; a batch is made once for all of them.

    Args:
        models: as they answer.
        batches: pictures, each (n, h, w, 3).
        names: of the outputs that are wanted.
    """
    parts = [[ask(names, batch) for ask in models] for batch in batches]
    return [
        dict(zip(names, map(np.concatenate, zip(*of_one, strict=True)), strict=True))
        for of_one in zip(*parts, strict=True)
    ]

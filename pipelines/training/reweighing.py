"""How often each image is drawn in an epoch, so that what should not tell the label does not."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import ConfigError
from pipelines.training.batches import Split

_LOG = logging.getLogger(__name__)


def draw_weights(train: Split, balance: str, what: str) -> NDArray[np.float64] | None:
    """How often to draw each image of the train split, their mean 1; None: each once an epoch.

    Args:
        train: the train split.
        balance: as in params.
        what: the task, for messages.

    Raises:
        ConfigError: if images are to be weighted by source, and sources cannot help.
    """
    if balance == "sampling":
        return class_draw_weights(train.class_index)
    if balance == "source":
        sources = [entry.source for entry in train.pictures.entries]
        return source_draw_weights(train.class_index, sources, what)
    return None


def class_draw_weights(class_index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights under which each class that occurs is drawn as often.

    Args:
        class_index: (n,).

    Returns:
        (n,), positive; their mean is 1.
    """
    counts = np.bincount(class_index)
    weights: NDArray[np.float64] = len(class_index) / (
        np.count_nonzero(counts) * counts[class_index]
    )
    return weights


def source_draw_weights(
    class_index: NDArray[np.int64], sources: Sequence[str], what: str
) -> NDArray[np.float64]:
    """Weights under which label and source are independent, and each class is drawn as often.

    Where a source lacks a class no weight can help: then classes are as often within each source,
    among those that it has, and a line of the log says what is missing.

    Args:
        class_index: (n,).
        sources: (n,) the collection that each image comes from; empty if unknown.
        what: the task, for messages.

    Returns:
        (n,), positive; their mean is 1. Each source keeps its share of all draws.

    Raises:
        ConfigError: if an image has no source, or if no source has images of two classes.

    References:
        Kamiran and Calders 2012, "Data preprocessing techniques for classification without
        discrimination", section 4.3 (reweighing: P(s) P(y) / P(s, y)); here with P(y) uniform.
    """
    n_unknown = sum(not source for source in sources)
    if n_unknown:
        raise ConfigError(
            f"params.yaml: {what}: train.balance: source needs the source of every image; "
            f"{n_unknown} of {len(sources)} train images have none in manifest.csv. Add a "
            f"'source' column to records.csv, or use class_weights."
        )
    names, source_index = np.unique(np.asarray(sources, dtype=np.str_), return_inverse=True)
    labels, label_index = np.unique(class_index, return_inverse=True)
    counts = np.zeros((len(names), len(labels)))
    np.add.at(counts, (source_index, label_index), 1)
    n_labels = np.count_nonzero(counts, axis=1)
    if n_labels.max() < 2:
        raise ConfigError(
            f"params.yaml: {what}: train.balance: source cannot help: each of the {len(names)} "
            f"sources has images of one class only, so that source and label are the same thing. "
            f"Collect other images, or use class_weights."
        )
    poor = [str(names[i]) for i in np.flatnonzero(n_labels < len(labels))]
    if poor:
        _LOG.warning(
            "%s: %d of %d sources lack a class (%s): there the label can still be told by the "
            "source",
            what,
            len(poor),
            len(names),
            ", ".join(poor[:3]),
        )
    each = counts.sum(axis=1) / n_labels
    weights: NDArray[np.float64] = each[source_index] / counts[source_index, label_index]
    return weights

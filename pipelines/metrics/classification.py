"""What a set of answers is worth, as pure functions on arrays.

scikit-learn's definitions, and scikit-learn's code where a call is rare; `accuracy` and `macro_f1`
are NumPy because `train` asks for them every epoch and scikit-learn takes a second to import.
Throughout, ``class_index`` is (n,) true classes, ``predicted`` (n,) answers, and ``probabilities``
(n, c), with rows that add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import DataError

#: Decimals of a written metric: more than any test split can resolve, and free of the last bits
#: in which two processors differ.
DECIMALS = 6


def accuracy(class_index: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]]) -> float:
    """Share of right answers, in [0, 1]."""
    return float(np.mean(np.asarray(class_index) == np.asarray(predicted)))


def macro_f1(
    class_index: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], n_classes: int
) -> float:
    """Mean over the classes of the F1 score, in [0, 1].

    A class that is neither present nor ever answered does not count, as in scikit-learn's
    ``f1_score`` with ``average="macro"``.
    """
    counts = confusion_counts(class_index, predicted, n_classes)
    right = np.diag(counts).astype(np.float64)
    asked_and_answered = counts.sum(axis=0) + counts.sum(axis=1)  # (c,)
    seen = asked_and_answered > 0
    return float(np.mean(2 * right[seen] / asked_and_answered[seen]))


def confusion_counts(
    class_index: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], n_classes: int
) -> NDArray[np.int64]:
    """(c, c) how often each class (row) was answered as each class (column)."""
    cells = np.asarray(class_index, np.int64) * n_classes + np.asarray(predicted, np.int64)
    counts: NDArray[np.int64] = np.bincount(cells, minlength=n_classes**2).astype(np.int64)
    return counts.reshape(n_classes, n_classes)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The n answers of a bin: their mean probability, and the share that is right, in [0, 1]."""

    n: int
    probability: float
    accuracy: float


def reliability_bins(
    class_index: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], bins: int
) -> list[ReliabilityBin]:
    """Said against true, in equally wide bins of the answer's probability; empty bins left out.

    A bin holds its upper edge.

    References:
        Guo et al. 2017, "On calibration of modern neural networks", section 2.
    """
    answer = probabilities.argmax(axis=1)
    said = probabilities.max(axis=1).astype(np.float64)
    right = answer == class_index
    place = np.clip(np.ceil(said * bins).astype(np.int64) - 1, 0, bins - 1)
    return [
        ReliabilityBin(int(here.sum()), float(said[here].mean()), float(right[here].mean()))
        for here in (place == index for index in range(bins))
        if here.any()
    ]


def expected_calibration_error(found: Sequence[ReliabilityBin]) -> float:
    """Mean gap between said and true, weighted by the answers in each bin; in [0, 1].

    References:
        Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning";
        Guo et al. 2017, equation 3.
    """
    n = sum(entry.n for entry in found)
    return sum(entry.n / n * abs(entry.accuracy - entry.probability) for entry in found)


def brier_scores(
    class_index: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """(n,) squared distance from the probabilities to the truth, in [0, 2], for each answer.

    Their mean is the Brier score.

    References:
        Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.
    """
    gaps = probabilities.astype(np.float64)
    gaps[np.arange(len(class_index)), class_index] -= 1
    scores: NDArray[np.float64] = np.square(gaps).sum(axis=1)
    return scores


def classification_metrics(
    class_index: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
    bins: int,
) -> dict[str, Any]:
    """The metrics of one set of answers; None, never NaN, where one is not defined.

    ``precision`` is None for a label that was never answered, ``recall`` for one that is absent,
    ``specificity`` for one that every image shows. ``roc_auc_ovr`` is one class against the rest;
    its macro mean needs every class present, as in scikit-learn.

    Args:
        labels: c labels, in the order of the columns.
        bins: of the expected calibration error.

    Raises:
        DataError: if there is no answer, or a probability is not finite.
    """
    from sklearn.metrics import log_loss

    c = len(labels)
    if probabilities.shape != (len(class_index), c) or not len(class_index):
        raise DataError(
            f"metrics need at least one answer: expected probabilities of shape (n, {c}) for n "
            f"images, got {probabilities.shape} for {len(class_index)}. Look at the test split."
        )
    if not np.isfinite(probabilities).all():
        n_bad = int((~np.isfinite(probabilities)).any(axis=1).sum())
        raise DataError(
            f"the model gives NaN or infinity for {n_bad} of {len(class_index)} images. "
            f"Export it again, or train it with a lower learning_rate."
        )
    # Rows of float32 add up to 1 only to 1e-7, of which log_loss warns.
    wide = probabilities.astype(np.float64)
    wide /= wide.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    counts = confusion_counts(class_index, predicted, c)
    per_class = {label: _one_class(counts, index) for index, label in enumerate(labels)}
    recalls = [entry["recall"] for entry in per_class.values() if entry["recall"] is not None]
    return {
        "n": len(class_index),
        "accuracy": accuracy(class_index, predicted),
        "balanced_accuracy": float(np.mean(recalls)),
        "macro_f1": macro_f1(class_index, predicted, c),
        "roc_auc_ovr": _roc_auc(class_index, wide, labels),
        "ece": expected_calibration_error(reliability_bins(class_index, probabilities, bins)),
        "brier": float(brier_scores(class_index, wide).mean()),
        "nll": float(log_loss(class_index, wide, labels=np.arange(c))),
        "per_class": per_class,
    }


def _one_class(counts: NDArray[np.int64], index: int) -> dict[str, float | int | None]:
    right = int(counts[index, index])
    support = int(counts[index].sum())
    answered = int(counts[:, index].sum())
    others = int(counts.sum()) - support
    return {
        "precision": right / answered if answered else None,
        "recall": right / support if support else None,
        "specificity": 1 - (answered - right) / others if others else None,
        "support": support,
    }


def _roc_auc(
    class_index: NDArray[np.integer[Any]], probabilities: NDArray[np.float64], labels: Sequence[str]
) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    per_class: dict[str, float | None] = {}
    for index, label in enumerate(labels):
        is_class = class_index == index
        defined = is_class.any() and not is_class.all()
        per_class[label] = (
            float(roc_auc_score(is_class, probabilities[:, index])) if defined else None
        )
    values = [value for value in per_class.values() if value is not None]
    # A mean over fewer classes is another quantity, and would look like this one.
    macro = float(np.mean(values)) if len(values) == len(labels) else None
    return {"macro": macro, "per_class": per_class}


def agreement(logits_a: NDArray[np.floating[Any]], logits_b: NDArray[np.floating[Any]]) -> float:
    """Share of images for which (n, c) logits of two models give the same answer, in [0, 1]."""
    return float(np.mean(logits_a.argmax(axis=1) == logits_b.argmax(axis=1)))


def sqnr_db(reference: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Power of a signal over the power of the error in a copy of it, in dB.

    Infinity for an exact copy, minus infinity for a copy of silence that is not silent.

    References:
        Signal-to-quantisation-noise ratio: Bennett 1948, "Spectra of quantized signals".
    """
    signal = float(np.sum(np.square(reference, dtype=np.float64)))
    error = reference.astype(np.float64) - other.astype(np.float64)
    noise = float(np.sum(np.square(error)))
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def max_recall_drop(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Largest fall of one label's recall; below 0 if every recall rose."""
    pairs = [
        (entry["recall"], after["per_class"][label]["recall"])
        for label, entry in before["per_class"].items()
    ]
    return float(max(old - new for old, new in pairs if None not in (old, new)))


def rounded(document: Any) -> Any:
    """A nested document as it is written: numbers to `DECIMALS`, None for what is not finite."""
    if isinstance(document, Mapping):
        return {key: rounded(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [rounded(value) for value in document]
    if isinstance(document, float):
        # Adding 0.0 turns -0.0 into 0.0.
        return round(document, DECIMALS) + 0.0 if math.isfinite(document) else None
    return document

"""The metrics of a set of answers with their intervals, as they stand in metrics.json and bundles.

The bootstrap itself is `pipelines.metrics.intervals`, whose names for arrays are those here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics.calibration import measured
from pipelines.metrics.classification import (
    brier_scores,
    expected_calibration_error,
    reliability_bins,
)
from pipelines.metrics.intervals import (
    DIFFERENCE,
    Draws,
    accuracies,
    balanced_accuracies,
    by_mean,
    by_shares,
    ece,
    interval_of,
    macro_f1s,
    of_counts,
    paired,
    precisions,
    recalls,
    resampled,
    roc_auc,
    rounded_interval,
    rounded_intervals,
    specificities,
)
from pipelines.serving.bundle import Bundle
from pipelines.serving.classification import softmax
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval

_OF_COUNTS = {
    "accuracy": accuracies,
    "macro_f1": macro_f1s,
    "balanced_accuracy": balanced_accuracies,
}
_OF_A_LABEL = {"precision": precisions, "recall": recalls, "specificity": specificities}
#: What a Brier score of several classes can be.
_BRIER = (0.0, 2.0)


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure the figures of each precision are, and of int8 against fp32, by metric."""

    intervals: dict[Precision, dict[str, Interval]]
    paired: dict[str, Interval]


def metric_intervals(
    draws: Draws,
    class_index: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
    bins: int,
) -> dict[str, Interval]:
    """By metric, value and interval; what is undefined is left out.

    Beside each metric, ``precision.<label>``, ``recall.<label>``, ``specificity.<label>`` and
    ``roc_auc_ovr.<label>`` stand for each label.
    """
    counts = resampled(draws, class_index, probabilities.argmax(axis=1), len(labels))
    found = {name: of_counts(draws, counts, metric)[0] for name, metric in _OF_COUNTS.items()}
    of_labels = {name: of_counts(draws, counts, metric) for name, metric in _OF_A_LABEL.items()}
    found["ece"] = ece(draws, class_index, probabilities, bins)
    found["brier"] = by_mean(draws, brier_scores(class_index, probabilities), _BRIER)
    found["roc_auc_ovr"], areas = roc_auc(draws, class_index, probabilities)
    for index, label in enumerate(labels):
        found[f"roc_auc_ovr.{label}"] = areas[index]
        for name, by_label in of_labels.items():
            found[f"{name}.{label}"] = by_label[index]
    return rounded_intervals(found)


class Gain(NamedTuple):
    """One metric of two models on the same images.

    Attributes:
        one: of the first.
        other: of the second.
        gain: by how much that of the second lies above that of the first, in pairs.
    """

    one: float
    other: float
    gain: Interval


def gain_of(
    draws: Draws,
    one: NDArray[Any],
    other: NDArray[Any],
    bounds: tuple[float, float] = DIFFERENCE,
) -> Gain | None:
    """A metric of (1 + r,) resamples of two models; None where it is not defined."""
    gain = interval_of(draws, other - one, bounds)
    if gain is None:
        return None
    return Gain(float(one[0]), float(other[0]), rounded_interval(gain))


def gain_of_means(
    draws: Draws,
    one: NDArray[Any],
    other: NDArray[Any],
    bounds: tuple[float, float] = DIFFERENCE,
) -> Gain | None:
    """The same of a metric that is a mean of (n,) values, NaN where an image does not count."""
    gain = by_mean(draws, other - one, bounds)
    if gain is None:
        return None
    return Gain(float(np.nanmean(one)), float(np.nanmean(other)), rounded_interval(gain))


def defined(gains: Mapping[str, Gain | None]) -> dict[str, Gain]:
    """Those that there are."""
    return {name: each for name, each in gains.items() if each is not None}


def paired_intervals(
    draws: Draws, class_index: NDArray[np.int64], a: NDArray[Any], b: NDArray[Any], n_classes: int
) -> dict[str, Interval]:
    """``accuracy_drop``, ``macro_f1_drop`` from (n,) answers ``a`` to ``b``, and ``agreement``."""
    return rounded_intervals(
        {
            "accuracy_drop": paired(draws, class_index, a, b, n_classes, accuracies),
            "macro_f1_drop": paired(draws, class_index, a, b, n_classes, macro_f1s),
            "agreement": by_mean(draws, a == b),
        }
    )


def served_metrics(
    bundle: Bundle,
    class_index: NDArray[np.integer[Any]],
    logits: NDArray[np.float32],
    is_refused: NDArray[np.bool_] | None,
    bins: int,
) -> dict[str, Any]:
    """``calibration``, ``operating_points`` and ``abstention`` as they stand in metrics.json.

    Args:
        bundle: what was chosen on val.
        logits: (n, c) of the served file for the test split.
        is_refused: (n,) whether the abstention refuses an image; None where there is none.
    """
    before, after = softmax(logits), softmax(logits, bundle.temperature)
    ece_before, ece_after = (
        expected_calibration_error(reliability_bins(class_index, each, bins))
        for each in (before, after)
    )
    points = {}
    for label, chosen in bundle.operating_points.items():
        index = bundle.labels.index(label)
        points[label] = {
            **measured(chosen.threshold, after[:, index], class_index == index),
            "min_specificity": chosen.min_specificity,
        }
    abstention = None
    if bundle.abstention is not None and is_refused is not None:
        accepted = (after.argmax(axis=1) == class_index)[~is_refused]
        abstention = {
            "acceptance": bundle.abstention.acceptance,
            "threshold": bundle.abstention.threshold,
            "refused": float(is_refused.mean()),
            "accuracy_of_accepted": float(accepted.mean()) if len(accepted) else None,
        }
    return {
        "calibration": {
            "temperature": bundle.temperature,
            "ece_before": ece_before,
            "ece_after": ece_after,
            "brier_before": float(brier_scores(class_index, before).mean()),
            "brier_after": float(brier_scores(class_index, after).mean()),
        },
        "operating_points": points,
        "abstention": abstention,
    }


def trust_intervals(
    draws: Draws,
    class_index: NDArray[np.int64],
    probabilities: NDArray[np.floating[Any]],
    bundle: Bundle,
    is_refused: NDArray[np.bool_] | None,
) -> dict[str, Interval]:
    """Of operating points and abstention, in the same form as `metric_intervals`.

    ``point.sensitivity.<label>`` and ``point.specificity.<label>`` for each operating point;
    ``refused`` and ``accuracy_of_accepted`` where there is an abstention.

    Args:
        probabilities: (n, c) of the served file.
        is_refused: (n,) whether the abstention refuses; None without one.
    """
    found: dict[str, Interval | None] = {}
    if bundle.operating_points:
        index = [bundle.labels.index(label) for label in bundle.operating_points]
        bounds = np.array([point.threshold for point in bundle.operating_points.values()])
        is_label = class_index[:, np.newaxis] == np.array(index)  # (n, points)
        says_yes = probabilities[:, index] >= bounds
        hits = {"sensitivity": (says_yes, is_label), "specificity": (~says_yes, ~is_label)}
        for name, (right, counts) in hits.items():
            found_of = by_shares(draws, right, counts)
            for label, interval in zip(bundle.operating_points, found_of, strict=True):
                found[f"point.{name}.{label}"] = interval
    if is_refused is not None:
        is_right = probabilities.argmax(axis=1) == class_index
        found["refused"] = by_mean(draws, is_refused)
        found["accuracy_of_accepted"] = by_mean(draws, np.where(is_refused, np.nan, is_right))
    return rounded_intervals(found)


def plain(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    """Intervals as they stand in metrics.json."""
    return {name: interval.model_dump() for name, interval in intervals.items()}


def with_bounds(metrics: Mapping[str, Any], certainty: Certainty) -> dict[str, Any]:
    """metrics.json for MLflow: ``<metric>_low`` and ``<metric>_high`` beside each metric.

    What stands in pairs alone is put beside the metrics, too.
    """
    kept = {key: value for key, value in metrics.items() if key not in ("intervals", "paired")}
    for precision, intervals in certainty.intervals.items():
        kept[precision] = {**metrics[precision], **_bounds(intervals)}
    drops = {name: each.value for name, each in certainty.paired.items() if name not in kept}
    return {**kept, **drops, **_bounds(certainty.paired)}


def _bounds(intervals: Mapping[str, Interval]) -> dict[str, float]:
    return {
        f"{name}_{end}": getattr(interval, end)
        for name, interval in intervals.items()
        for end in ("low", "high")
    }

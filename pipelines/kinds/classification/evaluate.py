"""The half of `classification` that `evaluate` asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry, class_index_of
from pipelines.errors import ConfigError
from pipelines.metrics.attacks import attack_intervals, attack_rates
from pipelines.metrics.certainty import (
    Certainty,
    Gain,
    defined,
    gain_of,
    gain_of_means,
    metric_intervals,
    paired_intervals,
    served_metrics,
    trust_intervals,
)
from pipelines.metrics.classification import agreement, classification_metrics, max_recall_drop
from pipelines.metrics.intervals import Draws, macro_f1s, resampled
from pipelines.metrics.predictions import confusion_csv, predictions_csv
from pipelines.plots.served import served_figures
from pipelines.serving.bundle import Bundle
from pipelines.serving.classification import LOGITS_NAME, softmax
from pipelines.serving.sessions import Precision

if TYPE_CHECKING:
    from pipelines.kinds.evaluate import Answers


class TestedClassification:
    """Labels and probabilities against the true classes."""

    #: Or pytest would look for tests in it.
    __test__ = False

    def unknown(self, entries: Sequence[Entry], bundle: Bundle) -> str | None:
        """Labels that the model does not know."""
        labels = sorted({entry.label for entry in entries} - set(bundle.labels))
        if not labels:
            return None
        return f"the model knows no label {', '.join(labels)}; expected {', '.join(bundle.labels)}"

    def metrics(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """As `classification_metrics` has them."""
        true, labels = _truth(answers), answers.bundle.labels
        by_precision: dict[str, dict[str, Any]] = {
            precision: classification_metrics(true, found, labels, params.calibration_bins)
            for precision, found in _probabilities(answers).items()
        }
        fp32, int8 = by_precision["fp32"], by_precision["int8"]
        return {
            **by_precision,
            "agreement": agreement(_logits(answers, "fp32"), _logits(answers, "int8")),
            "accuracy_drop": fp32["accuracy"] - int8["accuracy"],
            "max_recall_drop": max_recall_drop(fp32, int8),
        }

    def trust(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """Calibration, operating points, abstention, and how often presentation attacks pass."""
        served = answers.bundle.served.precision
        logits, true = _logits(answers, served), _truth(answers)
        found = served_metrics(
            answers.bundle, true, logits, answers.is_ood, params.calibration_bins
        )
        if params.attack is not None:
            index, threshold = _attack(answers.bundle, params.attack)
            rates = attack_rates(
                true == index, _probabilities(answers)[served][:, index], threshold
            )
            found["presentation_attack"] = {
                "attack": params.attack,
                "threshold": threshold,
                **rates,
            }
        return found

    def certainty(self, answers: Answers, draws: Draws, params: EvaluateParams) -> Certainty:
        """Of each metric, of each label, and of what int8 costs."""
        true, bundle, probabilities = _truth(answers), answers.bundle, _probabilities(answers)
        intervals = {
            key: metric_intervals(draws, true, found, bundle.labels, params.calibration_bins)
            for key, found in probabilities.items()
        }
        served = bundle.served.precision
        intervals[served] |= trust_intervals(
            draws, true, probabilities[served], bundle, answers.is_ood
        )
        if params.attack is not None:
            index, threshold = _attack(bundle, params.attack)
            intervals[served] |= attack_intervals(
                draws, true == index, probabilities[served][:, index], threshold
            )
        fp32, int8 = (_logits(answers, key).argmax(axis=1) for key in ("fp32", "int8"))
        return Certainty(intervals, paired_intervals(draws, true, fp32, int8, len(bundle.labels)))

    def tables(self, answers: Answers) -> tuple[str, str]:
        """A row an image."""
        labels, probabilities = answers.bundle.labels, _probabilities(answers)
        predicted = probabilities[answers.bundle.served.precision].argmax(axis=1)
        return (
            predictions_csv(labels, answers.entries, probabilities),
            confusion_csv(labels, answers.entries, predicted),
        )

    def figures(self, answers: Answers, params: EvaluateParams) -> dict[str, bytes]:
        """As `served_figures` draws them."""
        served = answers.bundle.served.precision
        return served_figures(
            answers.bundle, _truth(answers), _logits(answers, served), params.calibration_bins
        )

    def gains(self, one: Answers, other: Answers, draws: Draws) -> dict[str, Gain]:
        """Accuracy and macro-F1."""
        true, n_classes = _truth(one), len(one.bundle.labels)
        first, second = _said(one), _said(other)
        accuracy = gain_of_means(
            draws, np.asarray(first == true, float), np.asarray(second == true, float)
        )
        f1 = gain_of(
            draws,
            macro_f1s(resampled(draws, true, first, n_classes)),
            macro_f1s(resampled(draws, true, second, n_classes)),
        )
        return defined({"accuracy": accuracy, "macro_f1": f1})

    kept_of = ""

    def kept(self, before: Answers, after: Answers) -> NDArray[np.float64]:
        """1 where the label stays, else 0."""
        return np.asarray(_said(before) == _said(after), np.float64)

    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """Accuracy, macro-F1 and agreement."""
        served = metrics["served"]
        accuracy = certainty.intervals[served]["accuracy"]
        return (
            f"{served} accuracy {metrics[served]['accuracy']:.3f} (95 %: {accuracy.low:.3f} to "
            f"{accuracy.high:.3f}), macro-F1 {metrics[served]['macro_f1']:.3f}, agreement of int8 "
            f"and fp32 {metrics['agreement']:.3f}"
        )


def _attack(bundle: Bundle, label: str) -> tuple[int, float]:
    """The number of the label of attacks, and from which probability on it is called one.

    Raises:
        ConfigError: if the model has no such operating point.
    """
    point = bundle.operating_points.get(label)
    if point is None:
        raise ConfigError(
            f"params.yaml: tasks.{bundle.task}.evaluate.attack: {label!r} has no operating point. "
            f"Expected a label of the card with is_alarm, and export.min_specificity."
        )
    return bundle.labels.index(label), point.threshold


def _truth(answers: Answers) -> NDArray[np.int64]:
    return class_index_of(answers.entries, answers.bundle.labels)


def _said(answers: Answers) -> NDArray[np.int64]:
    """(n,) labels that one file answers with, by their numbers."""
    said: NDArray[np.int64] = _logits(answers, answers.only).argmax(axis=1)
    return said


def _logits(answers: Answers, precision: Precision) -> NDArray[np.float32]:
    return answers.outputs[precision][LOGITS_NAME]


def _probabilities(answers: Answers) -> dict[Precision, NDArray[np.float32]]:
    """As the predictor gives them, by precision in the order of the outputs."""
    return {
        precision: softmax(found[LOGITS_NAME], answers.bundle.temperature)
        for precision, found in answers.outputs.items()
    }

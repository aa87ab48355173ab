"""What a report knows of one task, and how figures are written; the templates have the words.

Called by `report`, which reads the files, and by `pipelines.reports.pages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.serving.bundle import Bundle
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import AuditScore, Interval
from pipelines.validation.external import Validation

#: What people call a metric of metrics.json.
METRIC_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "ece": "expected calibration error",
    "brier": "Brier score",
}


def share(value: float | None) -> str:
    """A share in three decimals; ``n/a`` where it is not defined."""
    return "n/a" if value is None else f"{value:.3f}"


def with_interval(interval: Interval | None, value: float | None = None, sign: str = "") -> str:
    """A figure and its interval, e.g. ``0.912 (0.870 to 0.948)``.

    Args:
        interval: None where there is none.
        value: shown alone where there is no interval.
        sign: ``+`` to show the sign of differences.
    """
    if interval is None:
        return "n/a" if value is None else f"{value:{sign}.3f}"
    low, high = f"{interval.low:{sign}.3f}", f"{interval.high:{sign}.3f}"
    return f"{interval.value:{sign}.3f} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What the report knows of one task.

    Attributes:
        bundle: the finished bundle.
        metrics: metrics.json.
        failed: what the gate does not accept, in words; empty where the model passes.
        figures: PNG bytes by caption.
        published: accuracies that others report on such data; empty where none are known.
        external: what this very model is worth on images from elsewhere.
    """

    bundle: Bundle
    metrics: Mapping[str, Any]
    failed: Sequence[str]
    figures: Mapping[str, bytes]
    published: str = ""
    external: Sequence[Validation] = ()

    @property
    def served(self) -> Mapping[str, Any]:
        """Metrics of the file that an app runs."""
        metrics: Mapping[str, Any] = self.metrics[self.bundle.served.precision]
        return metrics

    @property
    def verdict(self) -> str:
        """Of the gate, in words."""
        return f"fails: {', '.join(self.failed)}" if self.failed else "passes"

    @property
    def blind(self) -> AuditScore | None:
        """The audit that got farthest without the subject; None without an audit."""
        audit = self.bundle.audit
        deciding = [score for score in audit.scores if score.decides] if audit is not None else []
        return max(deciding, key=lambda score: score.macro_f1.value, default=None)

    @property
    def is_shortcut(self) -> bool:
        """Whether the audit says that the data tell their labels without the subject."""
        audit = self.bundle.audit
        return self.blind is not None and audit is not None and audit.verdict == "shortcut"

    @property
    def measured(self) -> dict[str, str]:
        """By heading, what `evaluate` measured. A new column is a line here; all pages follow."""
        audit, blind, absent = self.bundle.audit, self.blind, "not measured"
        verdict = audit.verdict if audit is not None else absent
        if audit is not None and verdict == "shortcut" and audit.accepted is not None:
            verdict = f"shortcut; accepted: {audit.accepted}"
        return {
            "Served": self.bundle.served.precision,
            "Accuracy": self.figure("accuracy"),
            "Macro-F1": self.figure("macro_f1"),
            "Blind macro-F1": f"{with_interval(blind.macro_f1)} {blind.name}" if blind else absent,
            "Linear probe macro-F1": with_interval(audit.probe) if audit is not None else absent,
            "Audit": verdict,
            "Test images": f"{self.metrics['n_images']:,}",
            "Test groups": f"{self.metrics['n_groups']:,}",
            "Agreement int8/fp32": share(self.metrics["agreement"]),
            "int8 bytes": f"{self.metrics['bytes']['int8']:,}",
        }

    def interval(self, metric: str) -> Interval | None:
        """The interval of a metric of the served file; None where there is none.

        Args:
            metric: as in metrics.json, e.g. ``macro_f1`` or ``recall.<label>``.
        """
        return (self.bundle.intervals or {}).get(self.bundle.served.precision, {}).get(metric)

    def of(self, precision: Precision, metric: str) -> str:
        """A metric of one file with its interval, as a cell says it."""
        intervals = (self.bundle.intervals or {}).get(precision, {})
        return with_interval(intervals.get(metric), self.metrics[precision].get(metric))

    def figure(self, metric: str) -> str:
        """`of` the file that is served."""
        return self.of(self.bundle.served.precision, metric)

    def paired(self, key: str, sign: str = "") -> str:
        """What int8 costs against fp32 on the same resamples, as a cell says it."""
        found = self.metrics["paired"].get(key)
        return with_interval(found and Interval.model_validate(found), sign=sign)

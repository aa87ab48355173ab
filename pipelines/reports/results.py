"""What a report knows of one task, and the columns of its tables.

Called by the pages; `report` reads the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.reports.blocks import Block, share, with_interval
from pipelines.serving.bundle import Bundle, Provenance
from pipelines.serving.trust import AuditReport, AuditScore, Interval
from pipelines.validation.external import Validation

SAMPLE_NOTE = (
    "Sample data: these numbers come from painted images. They show that the pipeline runs from "
    "end to end; they say nothing about real pictures."
)
#: What the figures of a report are.
HOW_MEASURED = (
    "Test split, which no training and no choice has seen; a group (see the data set's card) is in "
    "one split only. Accuracy and macro-F1 are of the file that is served, through the predictor "
    "that the app runs. In brackets stand 95 % intervals, percentile bootstrap by group (Efron & "
    "Tibshirani 1993; Field & Welsh 2007). With few groups they are too narrow: of 8 groups they "
    "held the true figure in 80 % of 1,000 trials, of 60 in 95 %. An interval without "
    "width means that no group erred: n right groups still allow about 3/n wrong ones (Hanley & "
    "Lippman-Hand 1983)."
)
#: What stands beside them.
HOW_BLIND = (
    "Blind: macro-F1 of the best model that does not see the subject (facts of the file, border, "
    "source), and linear probe: the same of a linear model on the frozen backbone's embeddings; "
    "both cross-validated by group on train and val. Audit: clean, suspicious or shortcut, by the "
    "share of the way from chance to the probe that the blind model comes."
)


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

    def interval(self, metric: str) -> Interval | None:
        """The interval of a metric of the served file; None where there is none.

        Args:
            metric: as in metrics.json, e.g. ``macro_f1`` or ``recall.<label>``.
        """
        return (self.bundle.intervals or {}).get(self.bundle.served.precision, {}).get(metric)


Column = tuple[str, Callable[[TaskResult], str]]


def best_blind(audit: AuditReport | None) -> AuditScore | None:
    """The audit that got farthest without the subject; None without an audit.

    Args:
        audit: of a task.
    """
    deciding = [score for score in audit.scores if score.decides] if audit is not None else []
    return max(deciding, key=lambda score: score.macro_f1.value, default=None)


def _blind(found: TaskResult) -> str:
    best = best_blind(found.bundle.audit)
    return f"{with_interval(best.macro_f1)} {best.name}" if best is not None else "not measured"


def _probe(found: TaskResult) -> str:
    audit = found.bundle.audit
    return with_interval(audit.probe) if audit is not None else "not measured"


def _audit(found: TaskResult) -> str:
    audit = found.bundle.audit
    if audit is None:
        return "not measured"
    if audit.verdict == "shortcut" and audit.accepted is not None:
        return f"shortcut; accepted: {audit.accepted}"
    return audit.verdict


def _measured(metric: str) -> Callable[[TaskResult], str]:
    return lambda found: with_interval(found.interval(metric), found.served[metric])


def _splits(counts: Mapping[str, int]) -> str:
    return " / ".join(f"{counts[split]:,}" for split in ("train", "val", "test"))


#: What `evaluate` measured. A new column is a line here; both pages and MLflow's follow.
MEASURED_COLUMNS: tuple[Column, ...] = (
    ("Served", lambda found: found.bundle.served.precision),
    ("Accuracy", _measured("accuracy")),
    ("Macro-F1", _measured("macro_f1")),
    ("Blind macro-F1", _blind),
    ("Linear probe macro-F1", _probe),
    ("Audit", _audit),
    ("Test images", lambda found: f"{found.metrics['n_images']:,}"),
    ("Test groups", lambda found: f"{found.metrics['n_groups']:,}"),
    ("Agreement int8/fp32", lambda found: share(found.metrics["agreement"])),
    ("int8 bytes", lambda found: f"{found.metrics['bytes']['int8']:,}"),
)

COLUMNS: tuple[Column, ...] = (
    ("Task", lambda found: found.bundle.task),
    ("Data", lambda found: found.bundle.provenance.data_source),
    *MEASURED_COLUMNS,
    ("Gate", lambda found: found.verdict),
)

#: What stands beside a number that is quoted outside of the project.
ORIGIN_COLUMNS: tuple[Column, ...] = (
    ("Task", lambda found: found.bundle.task),
    ("Data set", lambda found: found.bundle.title),
    ("Fetched from", lambda found: found.bundle.provenance.data_source),
    ("Images train / val / test", lambda found: _splits(found.bundle.provenance.n_images)),
    (
        "Split",
        lambda found: "given" if found.bundle.provenance.is_split_given else "made here",
    ),
    ("Groups train / val / test", lambda found: _splits(found.bundle.provenance.n_groups)),
    ("Trained on", lambda found: trained_on(found.bundle.provenance)),
    ("Backbone", lambda found: found.bundle.provenance.backbone),
    ("Initial weights", lambda found: found.bundle.provenance.weights),
    ("Data sha256", lambda found: f"{found.bundle.provenance.data_sha256[:12]}"),
)


def trained_on(made_of: Provenance) -> str:
    """The splits that the released weights have seen."""
    return "train + val" if made_of.is_refit else "train"


def table(columns: Sequence[Column], results: Sequence[TaskResult]) -> Block:
    """A table with one row a task.

    Args:
        columns: heading, and what a cell says.
        results: one a row.
    """
    return Block(
        "",
        header=tuple(heading for heading, _ in columns),
        rows=tuple(tuple(cell(found) for _, cell in columns) for found in results),
    )


def by_label(found: TaskResult) -> Block:
    """One row a label.

    Args:
        found: of one task.
    """
    rows = []
    for label, entry in found.served["per_class"].items():
        cells = [
            with_interval(found.interval(f"{name}.{label}"), entry[name])
            for name in ("precision", "recall", "specificity")
        ]
        rows.append((found.bundle.name_of(label), *cells, f"{entry['support']:,}"))
    header = ("label", "precision", "recall", "specificity", "support")
    return Block("", header=header, rows=tuple(rows))

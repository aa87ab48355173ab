"""gate: floors and bounds on the test split; a model that passes becomes MLflow's `champion`.

What it writes (gate.json) nobody reads: without an output that is absent from a fresh clone, DVC
would find all as it was and skip the stage, and MLflow there would have no champion.

Where the audit calls the data a shortcut, no figure of the test split opens the gate: the test
images carry the same shortcut. Params may accept it, with a reason (ADR 0012).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.atomic import write_text
from pipelines.config.gate import Demand, GateParams
from pipelines.errors import BundleError, ConfigError, GateError, MissingDataError
from pipelines.export.attempts import max_bytes
from pipelines.kinds.gate import demands
from pipelines.paths import Paths, TaskPaths
from pipelines.reports.pages import run_markdown
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.trust import AuditReport, read_audit
from pipelines.tracking import runs

_LOG = logging.getLogger(__name__)

#: Begins the name of a demand that comes from the audit.
_AUDIT = "audit: "


@dataclass(frozen=True, slots=True)
class Check:
    """One demand on a model.

    Attributes:
        metric: what is looked at, e.g. ``accuracy (int8)``.
        value: what the model reached; None where it is not defined, which never passes.
        bound: what is asked.
        sense: whether the value must be at least, at most or below the bound.
    """

    metric: str
    value: float | None
    bound: float
    sense: Literal["at least", "at most", "below"]

    @property
    def passed(self) -> bool:
        """Whether the demand is met; equality is enough."""
        if self.value is None:
            return False
        if self.sense == "below":
            return self.value < self.bound
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


def check(metrics: Mapping[str, Any], bundle: Bundle, params: GateParams) -> list[Check]:
    """What the gate asks of a model, with what the model reached.

    Raises:
        ConfigError: if a demand names no figure.
    """
    served = bundle.served.precision
    checks = [_checked(demand, metrics, served) for demand in demands(bundle, params)]
    if served == "int8":
        n_bytes = bundle.files["int8"].size_bytes
        most_bytes = max_bytes(params.max_int8_bytes, len(bundle.labels))
        checks.append(Check("int8 bytes", n_bytes, most_bytes, "at most"))
    return [*checks, *_shortcuts(bundle.audit)]


def _checked(demand: Demand, metrics: Mapping[str, Any], served: str) -> Check:
    """A demand, with what the model reached."""
    first, *rest = demand.metric.split(".")
    found: Any = metrics
    for key in (served if first == "served" else first, *rest):
        if not isinstance(found, Mapping) or key not in found:
            raise ConfigError(
                f"params.yaml: gate.demands: metric: expected a figure of metrics.json, e.g. "
                f"served.accuracy (got {demand.metric!r})."
            )
        found = found[key]
    if not isinstance(found, int | float | None):
        raise ConfigError(
            f"params.yaml: gate.demands: metric: {demand.metric} is no number (it is {found!r})."
        )
    name = f"{'.'.join(rest)} ({served})" if first == "served" else demand.metric
    return Check(name, found, demand.bound, demand.sense)


def _shortcuts(audit: AuditReport | None) -> list[Check]:
    """A demand that is not met for each audit that found a shortcut, unless it is accepted."""
    if audit is None or audit.verdict != "shortcut" or audit.accepted is not None:
        return []
    return [
        Check(f"{_AUDIT}{score.name}", score.share, audit.shortcut_share, "below")
        for score in audit.scores
        if score.decides and score.verdict == "shortcut"
    ]


def run(task: str, params: GateParams, paths: Paths) -> None:
    """Let a model pass, move the alias `champion` to it and write gate.json; or refuse it.

    Raises:
        MissingDataError: if `evaluate` or `audit` has not run.
        BundleError: if the bundle is incomplete or changed, or has other metrics or another audit.
        GateError: if a demand is not met; lists every one that is not. There is no gate.json then.
    """
    files = paths.task(task)
    files.passed.unlink(missing_ok=True)
    bundle, metrics = read_tested(files)
    audit = read_audit(files.audit, task)
    if bundle.audit != audit:
        raise BundleError(
            f"{files.audit}: the audit is not the one in {files.bundle.name}. "
            f"Run `dvc repro evaluate@{task}` again."
        )
    checks = check(metrics, bundle, params)
    failed = [entry for entry in checks if not entry.passed]
    if failed:
        raise GateError(refusal(task, failed))
    if audit.verdict == "shortcut":
        _LOG.warning("%s: a shortcut in the data is accepted: %s", task, audit.accepted)
    version = runs.release(
        paths,
        task,
        weights_sha256=bundle.provenance.float_sha256,
        onnx_path=files.mobile_dir / bundle.files[bundle.served.precision].name,
        bundle_path=files.bundle,
        tags={
            "domain": bundle.domain,
            "served": bundle.served.precision,
            "data_source": bundle.provenance.data_source,
        },
        description=run_markdown(bundle, metrics),
    )
    write_text(files.passed, json.dumps([asdict(entry) for entry in checks], indent=2) + "\n")
    where = f"champion is version {version}" if version is not None else "not registered"
    _LOG.info("%s: passed %d checks; %s", task, len(checks), where)


def read_tested(files: TaskPaths) -> tuple[Bundle, dict[str, Any]]:
    """The finished bundle of a task and its metrics.json, which must speak of one model.

    Raises:
        MissingDataError: if there are no metrics.
        BundleError: if the bundle is incomplete or changed, or has other metrics.
    """
    metrics = _read_metrics(files)
    bundle = read_bundle(files.bundle)
    if bundle.metrics is None or any(bundle.metrics[key] != metrics[key] for key in bundle.metrics):
        raise BundleError(
            f"{files.metrics}: the metrics are not those in {files.bundle.name}, so one of the two "
            f"speaks of another model. Run `dvc repro evaluate@{files.task}` again."
        )
    return bundle, metrics


def _read_metrics(files: TaskPaths) -> dict[str, Any]:
    advice = f"Run `dvc repro evaluate@{files.task}` first."
    try:
        document = json.loads(files.metrics.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingDataError(f"{files.metrics}: there are no metrics. {advice}") from None
    except (OSError, ValueError) as err:
        raise MissingDataError(f"{files.metrics}: is not readable JSON ({err}). {advice}") from err
    needed = {"fp32", "int8", "served", "agreement"}
    if not isinstance(document, dict) or not needed <= set(document):
        raise MissingDataError(f"{files.metrics}: expected {', '.join(sorted(needed))}. {advice}")
    return document


def refusal(task: str, failed: list[Check]) -> str:
    """One line, and a table of what failed."""
    shortcut = next((entry for entry in failed if entry.metric.startswith(_AUDIT)), None)
    first = failed[0]
    rows = [("metric", "value", "bound")]
    rows += [(e.metric, _number(e.value), f"{e.sense} {_number(e.bound)}") for e in failed]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    table = "\n".join(f"  {line.rstrip()}" for line in lines)
    if shortcut is not None:
        name = shortcut.metric.removeprefix(_AUDIT)
        return (
            f"{task} is not released: its data are a shortcut. Models that see only {name} come "
            f"{_number(shortcut.value)} of the way from chance to the linear probe, expected below "
            f"{_number(shortcut.bound)}; {len(failed)} of its demands failed. Get other images, or "
            f"say in params.yaml why the model may still be used (tasks.{task}.audit.accepted).\n"
            f"{table}"
        )
    return (
        f"{task} is not released: {first.metric} is {_number(first.value)}, expected {first.sense} "
        f"{_number(first.bound)}; {len(failed)} of its demands failed. Improve the model, or argue "
        f"for another bound in params.yaml (tasks.{task}.gate).\n{table}"
    )


def _number(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"

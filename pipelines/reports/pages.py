"""From values to Markdown and HTML: reports, results, model cards, external validations.

The words and the layout stand in templates/; a page is one file that loads nothing from elsewhere,
and figures stand in it as WebP at the size of their display. Which figures there are, a task's
kind says (`pipelines.kinds.report`). Called by `report` and `validate`; `evaluate` and `gate` put
`run_markdown` into MLflow.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pipelines.card import DatasetCard
from pipelines.errors import DataError
from pipelines.kinds.report import KINDS
from pipelines.kinds.shown import LABEL, Figure, Shown, Table
from pipelines.serving.bundle import Bundle, PreprocessSpec
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import METRIC_NAMES, AuditScore, Interval
from pipelines.validation.external import Validation

#: Of a figure that a task does not have; None is one that is not defined.
_ABSENT = object()


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
    def shown(self) -> Shown:
        """What the pages show of a task of this kind."""
        return KINDS[self.bundle.kind]

    @property
    def headline(self) -> Mapping[str, str]:
        """By heading, the metrics that count most for a task of this kind; the last counts most."""
        return self.shown.headline

    @property
    def main(self) -> str:
        """The metric in which network and audit are compared."""
        return list(self.headline.values())[-1]

    @property
    def measure(self) -> str:
        """What people call it."""
        return self.shown.measure or METRIC_NAMES.get(self.main, self.main)

    @property
    def row(self) -> dict[str, str | None]:
        """By heading, a cell of the kind's table; None of what this task has not."""
        audit, blind, absent = self.bundle.audit, self.blind, "not measured"
        verdict = audit.verdict if audit is not None else absent
        if audit is not None and verdict == "shortcut" and audit.accepted is not None:
            verdict = f"shortcut; accepted: {audit.accepted}"
        reached = f"{with_interval(blind.macro_f1)} {blind.name}" if blind else absent
        return {
            "Served": self.bundle.served.precision,
            **{heading: self.cell(figure) for heading, figure in self.shown.columns.items()},
            f"Blind {self.measure}": reached,
            f"Linear probe {self.measure}": with_interval(audit.probe) if audit else absent,
            "Audit": verdict,
            "Test images": f"{self.metrics['n_images']:,}",
            "Test groups": f"{self.metrics['n_groups']:,}",
            "Agreement int8/fp32": share(self.metrics["agreement"]),
            "int8 bytes": f"{self.metrics['bytes']['int8']:,}",
        }

    @property
    def measured(self) -> dict[str, str]:
        """By heading, what `evaluate` measured of this task."""
        return {heading: cell for heading, cell in self.row.items() if cell is not None}

    def cell(self, figure: Figure, label: str = "") -> str | None:
        """A figure of this task as a cell says it; None where neither it nor its interval is.

        Args:
            label: that the figure is of, where its path has a place for one.
        """
        interval = self.interval(figure.interval.replace(LABEL, label))
        if interval is not None:
            return with_interval(interval)
        found = self.at(figure.path, label)
        if isinstance(found, str):
            return found
        if isinstance(found, int):
            return f"{found:,}"
        return None if found is _ABSENT else share(found)

    def at(self, path: str, label: str = "") -> Any:
        """What stands at the path of a `Figure`; `_ABSENT` where nothing does."""
        found: Any = {**self.metrics, "served": self.served, "bundle": self.bundle}
        for key in path.split("."):
            name = key.replace(LABEL, label)
            is_mapping = isinstance(found, Mapping)
            found = found.get(name, _ABSENT) if is_mapping else getattr(found, name, _ABSENT)
        return found

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

    def name_of(self, metric: str) -> str:
        """What people call a metric, as short as a heading asks."""
        return self.measure if metric == self.main else METRIC_NAMES.get(metric, metric)

    def paired(self, key: str, sign: str = "") -> str:
        """What int8 costs against fp32 on the same resamples, as a cell says it."""
        found = self.metrics["paired"].get(key)
        return with_interval(found and Interval.model_validate(found), sign=sign)


# -- tables of several tasks ----------------------------------------------------------------------
class Filled(NamedTuple):
    """A table, and what stands above it."""

    title: str
    words: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, title: str, words: str, rows: Sequence[Mapping[str, str | None]]) -> Filled:
        """Of rows with the same headings; a column without any cell is left out."""
        header = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
        return cls(title, words, header, [[row[name] or "n/a" for name in header] for row in rows])


def _by_kind(results: Sequence[TaskResult]) -> list[list[TaskResult]]:
    """Those of each kind that is there."""
    found = [[result for result in results if result.bundle.kind == kind] for kind in KINDS]
    return [of_kind for of_kind in found if of_kind]


def kind_tables(results: Sequence[TaskResult]) -> list[Filled]:
    """A table a kind: a row a task."""
    return [
        Filled.of(
            of_kind[0].shown.title,
            of_kind[0].shown.how,
            [
                {
                    "Task": found.bundle.task,
                    "Data": found.bundle.provenance.data_source,
                    **found.row,
                    "Gate": found.verdict,
                }
                for found in of_kind
            ],
        )
        for of_kind in _by_kind(results)
    ]


def further_tables(results: Sequence[TaskResult]) -> dict[str, list[Filled]]:
    """By heading, the other tables of the kinds; those without a row have what to say instead.

    Tables of one heading and the same words are one, and have the same columns.
    """
    found: dict[str, dict[str, list[dict[str, str | None]]]] = {}
    for of_kind in _by_kind(results):
        for table in of_kind[0].shown.tables:
            rows = [row for result in of_kind for row in _rows(result, table)]
            words = table.words if rows else table.missing
            found.setdefault(table.title, {}).setdefault(words, []).extend(rows)
    return {
        title: [Filled.of(title, words, rows) for words, rows in tables.items()]
        for title, tables in found.items()
    }


def _rows(found: TaskResult, table: Table) -> list[dict[str, str | None]]:
    """The rows of a task; none where it has no figure for them."""
    if table.needs and found.at(table.needs) in (None, _ABSENT):
        return []
    rows = []
    for label in found.bundle.labels if table.is_by_label else [""]:
        cells = {name: found.cell(figure, label) for name, figure in table.columns.items()}
        if any(cell is not None for cell in cells.values()):
            named = {"label": found.bundle.name_of(label)} if table.is_by_label else {}
            rows.append({"Task": found.bundle.task, **named, **cells})
    return rows


def label_table(found: TaskResult) -> Filled:
    """What is told of each label of a task."""
    columns = found.shown.by_label
    rows = _rows(found, Table("", "", columns)) if columns else []
    return Filled.of("By label", "", [{k: row[k] for k in row if k != "Task"} for row in rows])


# -- templates ------------------------------------------------------------------------------------
@cache
def _environment(form: Literal["md", "html"]) -> Environment:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        # By the form and not by a file's name: templates that both forms share are escaped, too.
        autoescape=form == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.globals |= {"form": form, "metric_names": METRIC_NAMES}
    found.filters |= {
        "by_kind": _by_kind,
        "further_tables": further_tables,
        "kind_tables": kind_tables,
        "label_table": label_table,
    }
    found.filters |= {
        "cell": lambda text: _line(text).replace("|", "\\|"),
        "drop_in": lambda metric, found: found.paired(f"{metric}_drop", "+"),
        "drop_of": lambda metric, found: f"drop of {found.name_of(metric)}",
        "interval": with_interval,
        "line": _line,
        "name_of": lambda metric: METRIC_NAMES.get(metric, metric),
        "name_in": lambda label, found: found.name_of(label),
        "share": share,
        "splits": lambda n: " / ".join(f"{n[split]:,}" for split in ("train", "val", "test")),
        "taken_away": _taken_away,
        "thousands": lambda n: f"{n:,}",
    }
    return found


def _line(text: str) -> str:
    """Words on one line, whatever breaks they had; escaped text stays escaped."""
    return type(text)(" ").join(text.split())


def _taken_away(prepared: PreprocessSpec) -> str:
    """What no model of this task sees of a picture."""
    found = [
        *(["colour"] if prepared.grey else []),
        *([f"all but a shorter side of {prepared.side_px} px"] if prepared.side_px else []),
        *([f"{prepared.border_mask:.1%} of each edge"] if prepared.border_mask else []),
    ]
    return ", ".join(found) or "nothing"


def _markdown(template: str, **values: Any) -> str:
    text = _environment("md").get_template(template).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _html(template: str, **values: Any) -> str:
    return _environment("html").get_template(template).render(values)


# -- Markdown -------------------------------------------------------------------------------------
def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; a cell's bars and breaks are mended."""
    return _markdown("table.md.jinja", header=header, rows=rows)


def results_markdown(results: Sequence[TaskResult]) -> str:
    """reports/RESULTS.md."""
    return _markdown("results.md.jinja", results=results)


def real_results_markdown(results: Sequence[TaskResult], publishers: Mapping[str, str]) -> str:
    """docs/RESULTS.md: results on real images, with all that a number needs beside it.

    Args:
        results: one a row, not empty, none of synthetic images.
        publishers: by task, who publishes the data set, which version, under which licence.
    """
    return _markdown("real_results.md.jinja", results=results, publishers=publishers)


def search_markdown(**values: Any) -> str:
    """What a search found (`pipelines.reports.search`).

    Args:
        values: as templates/search.md.jinja names them.
    """
    return _markdown("search.md.jinja", **values)


def run_markdown(bundle: Bundle, metrics: Mapping[str, Any]) -> str:
    """What MLflow shows beside a run: its test figures with what they mean nothing without.

    Args:
        bundle: the finished one.
        metrics: metrics.json. The gate comes later: its verdict is not in the text.
    """
    return _markdown("run.md.jinja", found=TaskResult(bundle, metrics, failed=(), figures={}))


def model_card(found: TaskResult, card: DatasetCard, max_changed: Mapping[str, float]) -> str:
    """docs/cards/<task>.md; what a bundle does not hold is stated as missing.

    Args:
        found: of a task that was measured on real images.
        card: of its data set.
        max_changed: by kind, the largest share of answers that a harmless change may change.

    References:
        Mitchell et al. 2019, "Model cards for model reporting": the sections, and their order.
    """
    return _markdown(
        "model_card.md.jinja",
        found=found,
        bundle=found.bundle,
        made_of=found.bundle.provenance,
        card=card,
        max_changed=max_changed,
    )


# -- HTML -----------------------------------------------------------------------------------------
#: Twice 400 px: a figure is shown 320 to 640 px wide.
_WIDTHS_PX = (800, 640, 480)
_QUALITIES = (80, 60, 40, 20)
#: Of a figure on the page, and of all of them: with base64 the page stays below 3 MB.
_FIGURE_BYTES, _ALL_FIGURES_BYTES = 60_000, 2_000_000


def html_page(results: Sequence[TaskResult]) -> str:
    """reports/index.html: everything in one file, nothing loaded from elsewhere.

    Raises:
        DataError: if a figure is damaged.
    """
    n_figures = sum(len(found.figures) for found in results)
    most_bytes = min(_FIGURE_BYTES, _ALL_FIGURES_BYTES // max(1, n_figures))
    figures = [
        {caption: _figure(found, caption, most_bytes) for caption in found.figures}
        for found in results
    ]
    return _html("report.html.jinja", results=results, figures=figures)


def external_page(found: Validation) -> str:
    """validation.html: a released model on images from elsewhere."""
    headline = KINDS[found.kind].headline
    worse = [name for name in headline.values() if name in found.drops and found.is_worse(name)]
    return _html("validation.html.jinja", found=found, headline=headline, worse=worse)


class Embedded(NamedTuple):
    """A picture that a page holds."""

    webp: bytes
    width_px: int
    height_px: int

    @property
    def base64(self) -> str:
        """For a ``data:`` address."""
        return base64.b64encode(self.webp).decode("ascii")


def _figure(found: TaskResult, caption: str, most_bytes: int) -> Embedded:
    try:
        return embedded(found.figures[caption], most_bytes)
    except OSError as err:  # Pillow's for what is no picture, too
        raise DataError(
            f"{found.bundle.task}: the figure {caption!r} cannot be read ({err}). Make it again "
            f"with `dvc repro`."
        ) from err


def embedded(png: bytes, most_bytes: int) -> Embedded:
    """The best copy of a figure within so many bytes, or the smallest that is tried."""
    with Image.open(io.BytesIO(png)) as image:
        whole = image.convert("RGB")
    copy = Embedded(b"", 0, 0)
    for width in _WIDTHS_PX:
        # By the longer side too: a sheet may be many times as high as it is wide.
        factor = min(1.0, width / whole.width, 2 * width / whole.height)
        size = (max(1, round(whole.width * factor)), max(1, round(whole.height * factor)))
        small = whole.resize(size, Image.Resampling.LANCZOS) if factor < 1 else whole
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality, method=4)
            copy = Embedded(buffer.getvalue(), *size)
            if len(copy.webp) <= most_bytes:
                return copy
    return copy

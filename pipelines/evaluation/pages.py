"""The report as Markdown and as one self-contained HTML page; pure text from values.

Called by `report`, which reads the files.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipelines.mobile.bundle import Bundle

SAMPLE_NOTE = (
    "Sample data: these numbers come from painted images. They show that the pipeline runs from "
    "end to end; they say nothing about real pictures."
)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What the report knows of one task.

    Attributes:
        bundle: the finished bundle.
        metrics: metrics.json.
        failed: what the gate does not accept, in words; empty where the model passes.
        figures: PNG bytes by caption.
    """

    bundle: Bundle
    metrics: Mapping[str, Any]
    failed: Sequence[str]
    figures: Mapping[str, bytes]

    @property
    def served(self) -> Mapping[str, Any]:
        """Metrics of the file that an app runs."""
        metrics: Mapping[str, Any] = self.metrics[self.bundle.served.precision]
        return metrics

    @property
    def verdict(self) -> str:
        """Of the gate, in words."""
        return f"fails: {', '.join(self.failed)}" if self.failed else "passes"


Column = tuple[str, Callable[[TaskResult], str]]


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _splits(counts: Mapping[str, int]) -> str:
    return " / ".join(f"{counts[split]:,}" for split in ("train", "val", "test"))


#: A new column (an interval, a baseline) is a line here; both pages follow.
COLUMNS: tuple[Column, ...] = (
    ("Task", lambda found: found.bundle.task),
    ("Data", lambda found: found.bundle.provenance.data_source),
    ("Served", lambda found: found.bundle.served.precision),
    ("Accuracy", lambda found: _share(found.served["accuracy"])),
    ("Macro-F1", lambda found: _share(found.served["macro_f1"])),
    ("Test images", lambda found: f"{found.metrics['n_images']:,}"),
    ("Test groups", lambda found: f"{found.metrics['n_groups']:,}"),
    ("Agreement int8/fp32", lambda found: _share(found.metrics["agreement"])),
    ("int8 bytes", lambda found: f"{found.metrics['bytes']['int8']:,}"),
    ("Gate", lambda found: found.verdict),
)

#: What stands beside a number that is quoted outside of the project.
ORIGIN_COLUMNS: tuple[Column, ...] = (
    ("Task", lambda found: found.bundle.task),
    ("Data set", lambda found: found.bundle.title),
    ("Fetched from", lambda found: found.bundle.provenance.data_source),
    ("Images train / val / test", lambda found: _splits(found.bundle.provenance.n_images)),
    ("Groups train / val / test", lambda found: _splits(found.bundle.provenance.n_groups)),
    ("Backbone", lambda found: found.bundle.provenance.backbone),
    ("Initial weights", lambda found: found.bundle.provenance.weights),
    ("Data sha256", lambda found: f"{found.bundle.provenance.data_sha256[:12]}"),
)

_CLASS_COLUMNS = ("precision", "recall", "specificity", "support")


def markdown_table(columns: Sequence[Column], results: Sequence[TaskResult]) -> str:
    """A table with one row a task.

    Args:
        columns: heading, and what a cell says.
        results: one a row.
    """
    rows = [[heading for heading, _ in columns], ["---"] * len(columns)]
    rows += [[cell(found).replace("|", "\\|") for _, cell in columns] for found in results]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def results_markdown(results: Sequence[TaskResult]) -> str:
    """reports/RESULTS.md.

    Args:
        results: one a row, not empty.
    """
    note = f"> **{SAMPLE_NOTE}**\n\n" if any(found.bundle.is_sample for found in results) else ""
    return (
        "# Results\n\n"
        f"{note}"
        "Test split; groups are in one split only. Accuracy and macro-F1 are of the file that is "
        "served, through the predictor that the app runs.\n\n"
        f"{markdown_table(COLUMNS, results)}"
    )


def real_results_markdown(results: Sequence[TaskResult], publishers: Mapping[str, str]) -> str:
    """docs/RESULTS.md: results on real images, with all that a number needs beside it.

    Args:
        results: one a row, not empty, none of painted images.
        publishers: by task, who publishes the data set, which version, under which licence.
    """
    origin = (
        *ORIGIN_COLUMNS[:2],
        ("Publisher", lambda found: publishers[found.bundle.task]),
        *ORIGIN_COLUMNS[2:],
    )
    classes = "".join(f"\n### {found.bundle.task}\n\n{_class_markdown(found)}" for found in results)
    return (
        "# Results on real images\n\n"
        "Written by `fieldlens report --results`; do not edit. Every number is of the test split, "
        "which no training and no choice has seen; a group (see the data set's card) is in one "
        "split only. Accuracy and macro-F1 are of the file that is served, through the predictor "
        "that the app runs.\n\n"
        f"{markdown_table(COLUMNS, results)}\n"
        "## What was measured\n\n"
        f"{markdown_table(origin, results)}\n"
        "## By label\n"
        f"{classes}"
    )


def _class_rows(found: TaskResult) -> list[list[str]]:
    return [
        [label, *(_cell(entry[name]) for name in _CLASS_COLUMNS)]
        for label, entry in found.served["per_class"].items()
    ]


def _cell(value: float | int | None) -> str:
    return f"{value:,}" if isinstance(value, int) else _share(value)


def _class_markdown(found: TaskResult) -> str:
    rows = [["label", *_CLASS_COLUMNS], ["---"] * (1 + len(_CLASS_COLUMNS)), *_class_rows(found)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #f2f4f7;
  --line: #d5dae1; --warn: #8a3b00; --warn-paper: #fff1e0; --good: #00543c; --bad: #9a2b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --paper: #14171b; --soft: #1e2329;
  --line: #39414b; --warn: #ffc58a; --warn-paper: #3a2410; --good: #6fd6b0; --bad: #ff9f7a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin: 0; }
section { border-top: 1px solid var(--line); padding: 1.5rem 0; }
.note { background: var(--warn-paper); color: var(--warn); border-left: 6px solid var(--warn);
  padding: .8rem 1rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; min-width: 100%; }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th { background: var(--soft); }
.tag { display: inline-block; padding: .05rem .5rem; border: 1px solid; border-radius: 1rem;
  font-size: .85rem; } .good { color: var(--good); } .bad { color: var(--bad); }
.warn { color: var(--warn); }
.figures { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; } img { width: 100%; max-width: 40rem; height: auto; background: #fff; }
figcaption { font-size: .9rem; }
"""


def html_page(results: Sequence[TaskResult]) -> str:
    """reports/index.html: everything in one file, nothing loaded from elsewhere.

    Args:
        results: one a section, not empty.
    """
    is_sample = any(found.bundle.is_sample for found in results)
    note = f'<p class="note">{escape(SAMPLE_NOTE)}</p>\n' if is_sample else ""
    rows = [[cell(found) for _, cell in COLUMNS] for found in results]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Fieldlens results</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>Fieldlens results</h1>\n{note}"
        "<p>Test split; groups are in one split only. Accuracy and macro-F1 are of the file that "
        "is served, through the predictor that the app runs.</p>\n"
        f"{_html_table([heading for heading, _ in COLUMNS], rows)}"
        f"{''.join(_section(found) for found in results)}</body>\n</html>\n"
    )


def _html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return (
        f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>\n"
    )


def _section(found: TaskResult) -> str:
    bundle, made_of = found.bundle, found.bundle.provenance
    tags = [_tag("gate " + found.verdict, "bad" if found.failed else "good")]
    if bundle.is_sample:
        tags.insert(0, _tag("sample data", "warn"))
    facts = (
        f"{found.metrics['n_images']:,} test images of {found.metrics['n_groups']:,} groups. "
        f"Served: {bundle.served.precision} ({bundle.served.reason}). Backbone "
        f"{made_of.backbone}, initial weights {made_of.weights}. Expected calibration error "
        f"{_share(found.served['ece'])}, area under the ROC curve "
        f"{_share(found.served['roc_auc_ovr']['macro'])}."
    )
    figures = "".join(_figure(caption, png) for caption, png in found.figures.items())
    limits = "; ".join(bundle.not_for)
    return (
        f'<section id="{escape(bundle.task)}">\n<h2>{escape(bundle.title)}</h2>\n'
        f"<p><code>{escape(bundle.task)}</code> {' '.join(tags)}</p>\n<p>{escape(facts)}</p>\n"
        f"{_html_table(['label', *_CLASS_COLUMNS], _class_rows(found))}"
        f"<p>Intended use: {escape(bundle.intended_use)}<br>Not for: {escape(limits)}</p>\n"
        f'<div class="figures">\n{figures}</div>\n</section>\n'
    )


def _tag(text: str, tone: str) -> str:
    return f'<span class="tag {tone}">{escape(text)}</span>'


def _figure(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )

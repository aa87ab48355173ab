"""The report as Markdown and as one self-contained HTML page; pure text from values.

Called by `report`, which reads the files; `evaluate` and `gate` put `run_markdown` into MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from pipelines.errors import DataError
from pipelines.reports.blocks import (
    Block,
    embedded,
    figure,
    html,
    markdown,
    page,
    tag,
    with_interval,
)
from pipelines.reports.results import (
    COLUMNS,
    HOW_BLIND,
    HOW_MEASURED,
    MEASURED_COLUMNS,
    ORIGIN_COLUMNS,
    SAMPLE_NOTE,
    Column,
    TaskResult,
    by_label,
    table,
)
from pipelines.reports.trust_blocks import (
    abstention_block,
    audit_block,
    calibration_block,
    external_block,
    operating_block,
    paired_block,
    shortcut_words,
)
from pipelines.serving.bundle import Bundle

#: Of a figure on the page, and of all of them: with base64 the page stays below 3 MB.
_FIGURE_BYTES, _ALL_FIGURES_BYTES = 60_000, 2_000_000


def results_markdown(results: Sequence[TaskResult]) -> str:
    """reports/RESULTS.md.

    Args:
        results: one a row, not empty.
    """
    note = f"> **{SAMPLE_NOTE}**\n\n" if any(found.bundle.is_sample for found in results) else ""
    return f"# Results\n\n{note}{_main_table(results)}{_trust_markdown(results)}".rstrip() + "\n"


def real_results_markdown(results: Sequence[TaskResult], publishers: Mapping[str, str]) -> str:
    """docs/RESULTS.md: results on real images, with all that a number needs beside it.

    Args:
        results: one a row, not empty, none of painted images.
        publishers: by task, who publishes the data set, which version, under which licence.
    """
    publisher: Column = ("Publisher", lambda found: publishers[found.bundle.task])
    origin = (*ORIGIN_COLUMNS[:2], publisher, *ORIGIN_COLUMNS[2:])
    classes = "".join(
        f"### {found.bundle.task}\n\n{markdown(by_label(found), 4)}" for found in results
    )
    text = (
        "# Results on real images\n\n"
        "Written by `fieldlens report --results`; do not edit.\n\n"
        f"{_main_table(results)}"
        f"{_trust_markdown(results)}"
        f"## What was measured\n\n{markdown(table(origin, results), 3)}"
        f"## By label\n\n{classes}"
    )
    return text.rstrip() + "\n"


def run_markdown(bundle: Bundle, metrics: Mapping[str, Any]) -> str:
    """What MLflow shows beside a run: its test figures with what they mean nothing without.

    Args:
        bundle: the finished one.
        metrics: metrics.json.
    """
    # `gate` comes later: its verdict is not told.
    found = TaskResult(bundle, metrics, failed=(), figures={})
    notes = [SAMPLE_NOTE] if bundle.is_sample else []
    if (shortcut := shortcut_words(found)) is not None:
        notes.append(shortcut)
    cells = {name: cell(found) for name, cell in MEASURED_COLUMNS}
    rows = tuple(cells.items())
    # MLflow's page folds all but the first lines away.
    text = (
        f"**Macro-F1 {cells['Macro-F1']}; without the subject {cells['Blind macro-F1']}. Accuracy "
        f"{cells['Accuracy']}.** Test split, in brackets 95 % intervals by group.\n\n"
        f"{bundle.title}.\n\n"
        f"{markdown(Block('', tuple(notes), is_warning=True), 2) if notes else ''}"
        f"{markdown(Block('', header=('', 'figure'), rows=rows), 2)}"
        f"{HOW_BLIND}"
    )
    return text.rstrip() + "\n"


def _main_table(results: Sequence[TaskResult]) -> str:
    words = Block("", (HOW_MEASURED, HOW_BLIND))
    return f"{markdown(words, 2)}{markdown(table(COLUMNS, results), 2)}"


def _shortcuts(results: Sequence[TaskResult]) -> Block | None:
    words = [said for found in results if (said := shortcut_words(found)) is not None]
    if not words:
        return None
    return Block("What the shortcuts mean", tuple(words), is_warning=True)


def _over_all(results: Sequence[TaskResult]) -> list[Block]:
    """What is said of all tasks in one table each."""
    found = (
        paired_block(results),
        calibration_block(results),
        operating_block(results),
        abstention_block(results),
        external_block(results),
    )
    return [block for block in found if block is not None]


def _trust_markdown(results: Sequence[TaskResult]) -> str:
    shortcuts = _shortcuts(results)
    audits = "".join(
        markdown(audit_block(found.bundle.audit, found.bundle.task), 3) for found in results
    )
    return (
        f"{markdown(shortcuts, 2) if shortcuts is not None else ''}"
        f"## Audits\n\n{audits}"
        f"{''.join(markdown(block, 2) for block in _over_all(results))}"
    )


def html_page(results: Sequence[TaskResult]) -> str:
    """reports/index.html: everything in one file, nothing loaded from elsewhere.

    Args:
        results: one a section, not empty.

    Raises:
        DataError: if a figure is damaged.
    """
    is_sample = any(found.bundle.is_sample for found in results)
    note = f'<p class="note">{escape(SAMPLE_NOTE)}</p>\n' if is_sample else ""
    shortcuts = _shortcuts(results)
    warning = html(shortcuts) if shortcuts is not None else ""
    over_all = "".join(html(block) for block in _over_all(results))
    n_figures = sum(len(found.figures) for found in results)
    most_bytes = min(_FIGURE_BYTES, _ALL_FIGURES_BYTES // max(1, n_figures))
    return page(
        "Fieldlens results",
        f"{note}{html(Block('', (HOW_MEASURED, HOW_BLIND)))}{html(table(COLUMNS, results))}"
        f"{warning}"
        f"{''.join(_section(found, most_bytes) for found in results)}"
        f'<section id="trust">\n<h2>All tasks</h2>\n{over_all}</section>\n',
    )


def _section(found: TaskResult, most_bytes: int) -> str:
    bundle, made_of = found.bundle, found.bundle.provenance
    facts = (
        f"{found.metrics['n_images']:,} test images of {found.metrics['n_groups']:,} groups. "
        f"Served: {bundle.served.precision} ({bundle.served.reason}). Backbone "
        f"{made_of.backbone}, initial weights {made_of.weights}. Expected calibration error "
        f"{with_interval(found.interval('ece'), found.served['ece'])}, area under the ROC curve "
        f"{with_interval(found.interval('roc_auc_ovr'), found.served['roc_auc_ovr']['macro'])}."
    )
    figures = "".join(
        _figure(bundle.task, caption, png, most_bytes) for caption, png in found.figures.items()
    )
    limits = "; ".join(bundle.not_for)
    return (
        f'<section id="{escape(bundle.task)}">\n<h2>{escape(bundle.title)}</h2>\n'
        f"<p><code>{escape(bundle.task)}</code> {' '.join(_tags(found))}</p>\n"
        f"<p>{escape(facts)}</p>\n"
        f"{html(by_label(found))}"
        f"<p>Intended use: {escape(bundle.intended_use)}<br>Not for: {escape(limits)}</p>\n"
        f"{html(audit_block(bundle.audit, 'Audit'))}"
        f'<div class="figures">\n{figures}</div>\n</section>\n'
    )


def _figure(task: str, caption: str, png: bytes, most_bytes: int) -> str:
    try:
        return figure(caption, embedded(png, most_bytes))
    except OSError as err:  # Pillow's for what is no picture, too
        raise DataError(
            f"{task}: the figure {caption!r} cannot be read ({err}). Make it again with "
            f"`dvc repro`."
        ) from err


def _tags(found: TaskResult) -> list[str]:
    tags = [tag("sample data", "warn")] if found.bundle.is_sample else []
    tags.append(tag("gate " + found.verdict, "bad" if found.failed else "good"))
    audit = found.bundle.audit
    if audit is not None:
        tones = {"clean": "good", "suspicious": "warn", "shortcut": "bad"}
        tags.append(tag(f"audit: {audit.verdict}", tones[audit.verdict]))
    return tags

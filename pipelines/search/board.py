"""Runs the cells of a board; what has been done is kept, and a cell fails alone.

A plain loop: a grid has no next question that depends on the last answer. A search that samples
takes the same objective (docs/adr/0029).
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pipelines.atomic import write_bytes, write_text
from pipelines.data.manifest import class_index_of, in_split
from pipelines.errors import PipelineError
from pipelines.metrics.intervals import accuracies, draw, paired
from pipelines.paths import TaskPaths
from pipelines.plots.board import Point, board_figure
from pipelines.search.cells import (
    PRECISIONS,
    Cell,
    CellResult,
    Record,
    cells_of,
    key_of,
    read_record,
    write_record,
)
from pipelines.search.choice import Row, front_of, rank_correlation, rows_of
from pipelines.search.objective import Objective
from pipelines.serving.trust import Interval
from pipelines.tracking import runs

_LOG = logging.getLogger(__name__)

#: Of an error's line.
_MAX_WORDS = 400


def run_board(
    objective: Objective, cells: Sequence[Cell], code_of: Callable[[str], str], *, retry: bool
) -> list[Record]:
    """Run those cells of a task that have no result, and write tables and figure.

    The tables and the figure show each cell of the task's section that has a result, whichever
    were asked for now. Where all is there already, nothing is trained, written or told to MLflow.

    Args:
        cells: that are asked for.
        code_of: by backbone, what stands for the code that its cells are made by.
        retry: run those again that failed, or whose latency was refused.

    Returns:
        A record of each cell, in their order.

    Raises:
        StorageError: if the disk is full.
    """
    files = objective.paths.task(objective.task)

    def key(cell: Cell) -> str:
        return objective.key(cell, code_of(cell.backbone))

    def file(cell: Cell) -> Path:
        return files.board_cell(cell.name)

    def known() -> list[Record]:
        found = (read_record(file(cell), key(cell)) for cell in cells_of(objective.board))
        return [record for record in found if record is not None]

    records = [read_record(file(cell), key(cell)) for cell in cells]
    there = [record for record in records if record is not None]
    is_done = len(there) == len(cells) and not (retry and not all(map(is_sound, there)))
    if is_done and _is_written(files, board_csv(known())):
        return there
    board_key = key_of([key(cell) for cell in cells])
    with runs.board(objective.paths, objective.task, objective.domain, key=board_key) as parent:

        def told(record: Record) -> None:
            if is_sound(record):
                objective.forget(record.cell)
            tell_cell(parent, objective.task, record)

        found = run_cells(cells, objective, key, file, retry=retry, told=told)
        _write(files, known())
        parent.artifact(files.board_dir)
    return found


def run_cells(
    cells: Sequence[Cell],
    objective: Callable[[Cell], CellResult],
    key_of: Callable[[Cell], str],
    file_of: Callable[[Cell], Path],
    *,
    retry: bool = False,
    told: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """A record of each cell, from its file where there is one of the same key.

    A board that was killed goes on with the cell at which it was.

    Args:
        cells: in the order in which they run.
        objective: trains and measures one.
        key_of: hash of all that its result depends on.
        file_of: where its record is kept.
        retry: run those again that failed, or whose latency was refused.
        told: hears of each record once it is kept.

    Raises:
        StorageError: if a record cannot be written.
    """
    records = []
    for number, cell in enumerate(cells, start=1):
        key, file = key_of(cell), file_of(cell)
        record = read_record(file, key)
        if record is None or (retry and not is_sound(record)):
            _LOG.info("cell %d of %d: %s", number, len(cells), cell.title)
            record = _record_of(cell, objective, key)
            write_record(file, record)
        told(record)
        records.append(record)
    return records


def is_sound(record: Record) -> bool:
    """Whether a cell has a result, and its latencies are steady."""
    return record.result is not None and all(
        variant.latency.is_steady for variant in record.result.variants.values()
    )


def _record_of(cell: Cell, objective: Callable[[Cell], CellResult], key: str) -> Record:
    try:
        return Record(key=key, cell=cell, result=objective(cell))
    except Exception as err:  # noqa: BLE001 (whatever ends one cell must not end the board)
        words = " ".join(str(err).split())[:_MAX_WORDS]
        error = words if isinstance(err, PipelineError) else f"{type(err).__name__}: {words}"
        _LOG.warning("%s has failed: %s", cell.title, error)
        _LOG.debug("the error came from here", exc_info=True)
        return Record(key=key, cell=cell, error=error)


def tell_cell(parent: runs.Run, task: str, record: Record) -> None:
    """A child run of a board; what MLflow has been told already is not told again."""
    metrics: dict[str, object] = {}
    if record.result is not None:
        variants = record.result.model_dump()["variants"]
        for precision in variants:
            del variants[precision]["answers"]
        metrics = {
            **variants,
            "multiply_adds": record.result.multiply_adds,
            "parameters": record.result.parameters,
        }
    runs.record_cell(
        parent,
        task,
        name=record.cell.name,
        key=hashlib.sha256(record.model_dump_json().encode()).hexdigest(),
        params=record.cell.model_dump(),
        metrics=metrics,
        error=record.error,
    )


def gain(objective: Objective, one: Row, other: Row) -> Interval:
    """By how much one row is more accurate than another, on the same test images, in pairs."""
    entries, labels = in_split(objective.data.entries, "test"), objective.data.summary.labels
    draws = draw([entry.group for entry in entries], objective.board.resamples, objective.seed)
    a, b = (np.array(row.variant.answers) for row in (one, other))
    found = paired(draws, class_index_of(entries, labels), a, b, len(labels), accuracies)
    assert found is not None  # every image has an answer
    return found


# -- tables and figure ----------------------------------------------------------------------------
_COLUMNS = (
    "backbone",
    "width",
    "image_px",
    "precision",
    "is_on_front",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "macro_f1",
    "macro_f1_low",
    "macro_f1_high",
    "ms",
    "ratio_to_reference",
    "gap_of_passes",
    "size_bytes",
    "peak_bytes",
    "multiply_adds",
    "parameters",
    "refusal",
    "error",
)


def _is_written(files: TaskPaths, text: str) -> bool:
    try:
        return files.board.read_text(encoding="utf-8") == text
    except FileNotFoundError:
        return False


def _write(files: TaskPaths, records: Sequence[Record]) -> None:
    rows = _rows(records)
    write_text(files.board_front, _csv(_line(row, is_on_front=True) for row in front_of(rows)))
    write_bytes(files.board_figure, _figure(rows, files.task))
    # Last: by it a later call sees that all is there.
    write_text(files.board, board_csv(records))


def _rows(records: Iterable[Record]) -> list[Row]:
    return rows_of(record.result for record in records if record.result is not None)


def board_csv(records: Sequence[Record]) -> str:
    """One row a file of a network, and one a cell that failed."""
    rows = _rows(records)
    front = front_of(rows)
    lines = [_line(row, is_on_front=row in front) for row in rows]
    lines += [
        {**record.cell.model_dump(), "error": record.error}
        for record in records
        if record.error is not None
    ]
    return _csv(lines)


def _csv(lines: Iterable[dict[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return buffer.getvalue()


def _line(row: Row, *, is_on_front: bool) -> dict[str, object]:
    variant = row.variant
    intervals = {
        f"{name}{end}": round(value, 6)
        for name, interval in (("accuracy", variant.accuracy), ("macro_f1", variant.macro_f1))
        for end, value in (
            ("", interval.value),
            ("_low", interval.low),
            ("_high", interval.high),
        )
    }
    return {
        **row.result.cell.model_dump(),
        "precision": row.precision,
        "is_on_front": int(is_on_front),
        **intervals,
        "ms": None if row.ms is None else round(row.ms, 4),
        "ratio_to_reference": round(variant.latency.ratio, 4),
        "gap_of_passes": round(variant.latency.gap, 4),
        "size_bytes": variant.size_bytes,
        "peak_bytes": variant.peak_bytes,
        "multiply_adds": row.result.multiply_adds,
        "parameters": row.result.parameters,
        "refusal": row.refusal,
    }


def _figure(rows: Sequence[Row], task: str) -> bytes:
    front = front_of(rows)
    # Those of the front first, in its order: by that they are numbered.
    ordered = front + [row for row in rows if row not in front]
    points = [
        Point(
            title=row.title,
            precision=row.precision,
            accuracy=row.accuracy,
            low=row.variant.accuracy.low,
            high=row.variant.accuracy.high,
            ms=row.ms,
            multiply_adds=row.result.multiply_adds / 1e6,
            is_on_front=row in front,
        )
        for row in ordered
        if row.ms is not None
    ]
    correlation: dict[str, float | None] = {
        precision: rank_correlation(rows, precision) for precision in PRECISIONS
    }
    return board_figure(points, correlation, f"{task}: {len(points)} files")

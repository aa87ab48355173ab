"""Runs the cells of a board; what has been done is kept, and a cell fails alone.

In a plain loop, or as trials of Ray Tune (`pipelines.scale.sweeps`): who runs cells is an `Engine`,
and what is kept, told and written is the same (docs/adr/0029, 0039).
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol

import numpy as np

from pipelines.atomic import write_bytes, write_text
from pipelines.data.manifest import class_index_of, in_split
from pipelines.errors import in_one_line
from pipelines.metrics.intervals import accuracies, draw, paired
from pipelines.paths import TaskPaths
from pipelines.plots.board import Point, board_figure
from pipelines.search.cells import (
    PRECISIONS,
    Cell,
    CellResult,
    Outcome,
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
from pipelines.training.job import Observer

_LOG = logging.getLogger(__name__)


class CellFunction(Protocol):
    """Trains and measures a cell."""

    def __call__(self, cell: Cell, observer: Observer | None = None) -> CellResult:
        """As `Objective` does."""


class Engine(Protocol):
    """Runs cells."""

    def __call__(
        self,
        objective: CellFunction,
        cells: Sequence[Cell],
        begun: Callable[[Cell], None],
        done: Callable[[Outcome], None],
    ) -> None:
        """Run each, and say when it begins and what has become of it; in any order.

        What `done` raises ends the board.
        """


def in_turn(
    objective: CellFunction,
    cells: Sequence[Cell],
    begun: Callable[[Cell], None],
    done: Callable[[Outcome], None],
) -> None:
    """One cell after another."""
    for cell in cells:
        begun(cell)
        done(_outcome_of(cell, objective))


def in_this_process() -> AbstractContextManager[Engine]:
    """The engine that needs no other process."""
    return nullcontext(in_turn)


def run_board(
    objective: Objective,
    cells: Sequence[Cell],
    code_of: Callable[[str], str],
    *,
    retry: bool,
    engine: Callable[[], AbstractContextManager[Engine]] = in_this_process,
) -> list[Record]:
    """Run those cells of a task that have no result, and write tables and figure.

    The tables and the figure show each cell of the task's section that has a result, whichever
    were asked for now. Where all is there already, nothing is trained, written or told to MLflow.

    Args:
        cells: that are asked for.
        code_of: by backbone, what stands for the code that its cells are made by.
        retry: run those again that failed or were stopped, or whose latency was refused.
        engine: opened where there is something to run.

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
    with (
        engine() as run,
        runs.board(objective.paths, objective.task, objective.domain, key=board_key) as parent,
    ):

        def told(record: Record) -> None:
            if is_sound(record):
                objective.forget(record.cell)
            tell_cell(parent, objective.task, record)

        found = run_cells(cells, objective, key, file, run, retry=retry, told=told)
        _write(files, known())
        parent.artifact(files.board_dir)
    return found


def run_cells(
    cells: Sequence[Cell],
    objective: CellFunction,
    key_of: Callable[[Cell], str],
    file_of: Callable[[Cell], Path],
    engine: Engine = in_turn,
    *,
    retry: bool = False,
    told: Callable[[Record], None] = lambda record: None,
) -> list[Record]:
    """A record of each cell, from its file where there is one of the same key.

    A board that was killed goes on with the cells at which it was.

    Args:
        cells: in the order in which they run.
        objective: trains and measures one.
        key_of: hash of all that its result depends on.
        file_of: where its record is kept.
        engine: runs those that are missing.
        retry: run those again that failed or were stopped, or whose latency was refused.
        told: hears of each record once it is kept.

    Raises:
        StorageError: if a record cannot be written.
    """
    records: dict[Cell, Record] = {}
    for cell in cells:
        record = read_record(file_of(cell), key_of(cell))
        if record is not None and not (retry and not is_sound(record)):
            told(record)
            records[cell] = record

    def begun(cell: Cell) -> None:
        _LOG.info("cell %d of %d: %s", cells.index(cell) + 1, len(cells), cell.title)

    def done(outcome: Outcome) -> None:
        if outcome.error is not None:
            _LOG.warning("%s has failed: %s", outcome.cell.title, outcome.error)
        if outcome.stopped is not None:
            _LOG.info("%s %s", outcome.cell.title, outcome.stopped)
        record = Record(key=key_of(outcome.cell), **dict(outcome))
        write_record(file_of(record.cell), record)
        told(record)
        records[record.cell] = record

    missing = [cell for cell in cells if cell not in records]
    if missing:
        engine(objective, missing, begun, done)
    return [records[cell] for cell in cells]


def is_sound(record: Record) -> bool:
    """Whether a cell has a result, and its latencies are steady."""
    return record.result is not None and all(
        variant.latency.is_steady for variant in record.result.variants.values()
    )


def _outcome_of(cell: Cell, objective: CellFunction) -> Outcome:
    try:
        return Outcome(cell=cell, result=objective(cell))
    except Exception as err:  # noqa: BLE001 (whatever ends one cell must not end the board)
        _LOG.debug("the error came from here", exc_info=True)
        return Outcome(cell=cell, error=in_one_line(err))


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
        why_none=record.why_none,
        was_stopped=record.stopped is not None,
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
    """One row a file of a network, and one a cell that failed or was stopped."""
    rows = _rows(records)
    front = front_of(rows)
    lines = [_line(row, is_on_front=row in front) for row in rows]
    lines += [
        {**record.cell.model_dump(), "error": record.why_none}
        for record in records
        if record.result is None
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

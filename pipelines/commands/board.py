"""`fieldlens board TASK…`: many networks on one task, and which one to ship."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import TYPE_CHECKING

from pipelines import locks
from pipelines.columns import table
from pipelines.commands import engines
from pipelines.commands.answer import Answer
from pipelines.errors import ConfigError
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pipelines.config.params import Params
    from pipelines.search.board import Engine
    from pipelines.search.cells import Record
    from pipelines.search.choice import Choice, Row, Wishes
    from pipelines.search.objective import Objective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks and cells, and what is asked of the network to ship."""
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="as in params.yaml")
    cells = parser.add_argument_group(
        "cells", "of the task's section board: in params.yaml, these alone"
    )
    cells.add_argument("--backbones", nargs="+", default=[], metavar="NAME")
    cells.add_argument("--widths", nargs="+", type=float, default=[], metavar="W")
    cells.add_argument("--image-px", nargs="+", type=int, default=[], metavar="PX")
    cells.add_argument(
        "--retry",
        action="store_true",
        help="try those again that failed, were stopped, or had no steady latency",
    )
    engine = parser.add_argument_group("by what they are trained")
    engines.add_arguments(engine, local="one cell after another")
    engines.add_workers(engine, what="cells")
    engine.add_argument(
        "--stop-early",
        action="store_true",
        help="of Ray: end trainings that are behind the others by the val split",
    )
    wishes = parser.add_argument_group("which one to ship")
    wishes.add_argument("--max-ms", type=_positive, metavar="MS", help="one picture, one thread")
    wishes.add_argument("--max-mb", type=_positive, metavar="MB", help="size of the file")
    wishes.add_argument(
        "--min-recall",
        action="append",
        type=_recall,
        default=[],
        metavar="CLASS=SHARE",
        help="of the test split, e.g. melanoma=0.95; may be repeated",
    )


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0 (got {text})")
    return value


def _recall(text: str) -> tuple[str, float]:
    label, found, share = text.rpartition("=")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not found or not label or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"expected a class, '=' and a share from 0 to 1, e.g. melanoma=0.95 (got {text})"
        )
    return label, value


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Train and measure the cells that have no result, then tell what there is.

    Raises:
        ConfigError: if there is no such task, cell or class, or the task is of another kind.
        MissingDataError: if `prepare` has not run.
    """
    from pipelines.config.params import load_params
    from pipelines.search.board import run_board
    from pipelines.search.cells import cells_of, restricted
    from pipelines.search.choice import Wishes

    _check_engine(arguments)
    if engines.is_ray(arguments):
        # Its processes stand in other folders.
        paths = Paths(paths.root.absolute())
    params = load_params(paths.params)
    wishes = Wishes(arguments.max_ms, arguments.max_mb, dict(arguments.min_recall))
    asked = []
    # All tasks before the first training.
    for task in dict.fromkeys(arguments.tasks):
        objective = objective_of(task, params, paths)
        _check_labels(task, wishes, objective.data.summary.labels)
        chosen = restricted(
            cells_of(objective.board),
            arguments.backbones,
            arguments.widths,
            arguments.image_px,
        )
        asked.append((objective, chosen))
    answers = []
    for objective, chosen in asked:
        with locks.hold(paths.task(objective.task).lock, f"board {objective.task}"):
            records = run_board(
                objective,
                chosen,
                code_of(paths),
                retry=arguments.retry,
                engine=_engine(arguments, objective),
            )
        answers.append(_answer(objective, records, wishes))
    return Answer(
        "\n\n".join(answer.text for answer in answers),
        tuple(line for answer in answers for line in answer.complaints),
        max(answer.exit_code for answer in answers),
    )


def _check_engine(arguments: argparse.Namespace) -> None:
    engines.check(arguments, "stop_early")
    if arguments.retry and arguments.stop_early:
        raise ConfigError(
            "--retry: trains cells that were stopped to their end. Leave out --stop-early, or this."
        )


def _engine(
    arguments: argparse.Namespace, objective: Objective
) -> Callable[[], AbstractContextManager[Engine]]:
    from pipelines.search.board import in_this_process

    if not engines.is_ray(arguments):
        return in_this_process
    from pipelines.scale.boards import halving_of, ray_engine

    halving = halving_of(objective.train) if arguments.stop_early else None
    return partial(ray_engine, arguments.workers, arguments.address, halving)


def objective_of(task: str, params: Params, paths: Paths) -> Objective:
    """What trains and measures a cell of a task.

    Raises:
        ConfigError: if there is no such task, or it is of another kind.
        MissingDataError: if `prepare` has not run.
    """
    from pipelines.card import load_card
    from pipelines.search.objective import Objective
    from pipelines.training.job import Data

    section, files = params.task(task), paths.task(task)
    kind = load_card(files.card).kind
    if kind != "classification":
        raise ConfigError(
            f"{files.card}: kind: a board compares classifiers; expected classification "
            f"(got {kind!r})."
        )
    return Objective(
        task=task,
        domain=section.domain,
        train=section.train,
        export=section.export,
        board=section.board,
        search=section.search,
        seed=params.seed,
        data=Data.read(files),
        paths=paths,
    )


def code_of(paths: Paths) -> Callable[[str], str]:
    """By backbone, what stands for the code that its cells are made by."""
    from pipelines.stages.code import board_code

    return cache(lambda backbone: board_code(backbone, paths.root))


def _check_labels(task: str, wishes: Wishes, labels: Sequence[str]) -> None:
    for label in wishes.min_recall:
        if label not in labels:
            raise ConfigError(
                f"--min-recall: {task} has no class {label!r}. Expected one of {', '.join(labels)}."
            )


# -- answer ---------------------------------------------------------------------------------------
def _answer(objective: Objective, records: Sequence[Record], wishes: Wishes) -> Answer:
    from pipelines.search.choice import choose, front_of, nearest_miss, rows_of

    task = objective.task
    rows = rows_of(record.result for record in records if record.result is not None)
    complaints = [
        f"{task}: {each.cell.title} has failed: {each.error} (--retry tries it again.)"
        for each in records
        if each.error is not None
    ]
    complaints += [
        f"{task}: {each.cell.title} was {each.stopped}. (--retry trains it to its end.)"
        for each in records
        if each.stopped is not None
    ]
    if len(complaints) == len(records):
        return Answer("", tuple(complaints), exit_code=2)
    front = front_of(rows)
    processors = dict.fromkeys(row.result.processor for row in rows)
    if len(processors) > 1:
        complaints.append(
            f"{task}: cells were timed on {len(processors)} kinds of processor "
            f"({', '.join(processors)}): their latencies are no match."
        )
    lines = [_head(objective, rows), "", _table(rows, front), "", *_below(rows)]
    choice = choose(rows, wishes)
    if choice is not None:
        if wishes.words:
            lines += ["", *_advice(objective, choice, wishes)]
        return Answer("\n".join(lines), tuple(complaints))
    miss = nearest_miss(rows, wishes)
    nearest = (
        f"the nearest is {miss[0].title}: {miss[1]}" if miss else "no row has a steady latency"
    )
    complaints.append(
        f"{task}: nothing on the board has {wishes.words or 'a steady latency'}; {nearest}. Relax "
        f"the wish, or add cells to the task's section board: of params.yaml."
    )
    return Answer("\n".join(lines), tuple(complaints), exit_code=2)


def _head(objective: Objective, rows: Sequence[Row]) -> str:
    asked = objective.board.reference
    cells = len({row.result.cell for row in rows})
    n_test = len(rows[0].variant.answers)
    return (
        f"{objective.task}: {cells} network{'s' if cells > 1 else ''} in {len(rows)} files, "
        f"{n_test} test images. Latency of one picture on one thread of "
        f"{rows[0].result.processor}, beside {asked.backbone} x{asked.width:g} at "
        f"{asked.image_px} px in float32."
    )


def _table(rows: Sequence[Row], front: Sequence[Row]) -> str:
    header = ("", "NETWORK", "ACCURACY", "95 %", "MS", "OF REF.", "MB", "M ADDS", "PEAK MB", "")
    ordered = sorted(rows, key=lambda row: (row not in front, -row.accuracy, row.title))
    return table(
        header,
        [
            (
                "*" if row in front else "",
                row.title,
                f"{row.accuracy:.3f}",
                f"{row.variant.accuracy.low:.3f} to {row.variant.accuracy.high:.3f}",
                f"{row.ms:.2f}" if row.ms is not None else "-",
                f"{row.variant.latency.ratio:.2f}" if row.ms is not None else "-",
                f"{row.megabytes:.2f}",
                f"{row.result.multiply_adds / 1e6:.0f}",
                f"{row.variant.peak_bytes / 1e6:.2f}",
                row.refusal or "",
            )
            for row in ordered
        ],
    )


def _below(rows: Sequence[Row]) -> list[str]:
    from pipelines.search.cells import PRECISIONS
    from pipelines.search.choice import rank_correlation

    found = {precision: rank_correlation(rows, precision) for precision in PRECISIONS}
    told = [f"{key} {value:.2f}" for key, value in found.items() if value is not None]
    lines = [
        "* No other is as accurate, as quick and as small. The accuracy of the best of many is "
        "flattered: see its interval."
    ]
    if told:
        lines.append(f"Rank correlation of multiply-adds and latency: {', '.join(told)}.")
    return lines


def _advice(objective: Objective, choice: Choice, wishes: Wishes) -> list[str]:
    best, other = choice.best, choice.runner_up
    accuracy = best.variant.accuracy
    lines = [
        f"Ship {best.title}: the most accurate with {wishes.words}. Accuracy {accuracy.value:.3f} "
        f"({accuracy.low:.3f} to {accuracy.high:.3f}), {best.ms:.2f} ms, {best.megabytes:.2f} MB."
    ]
    if other is None:
        lines.append("No runner-up: nothing else that holds is quicker or smaller.")
    else:
        lines.append(_runner_up(objective, best, other))
    return [*lines, _next_step(objective, best)]


def _next_step(objective: Objective, best: Row) -> str:
    """What to write into params.yaml, the bounds on int8 included where the file is larger."""
    from pipelines.export.attempts import max_bytes

    cell, labels = best.result.cell, objective.data.summary.labels
    written = f"train.backbone: {cell.backbone}, train.width: {cell.width:g}, "
    written += f"train.image_px: {cell.image_px}"
    int8 = best.result.variants["int8"].size_bytes
    if int8 > max_bytes(objective.export.max_int8_bytes, len(labels)):
        written += f", export.max_int8_bytes and gate.max_int8_bytes: at least {int8}"
    return (
        f"In params.yaml, below tasks.{objective.task}: {written}; then `dvc repro "
        f"gate@{objective.task}`, which serves int8 where it holds its bounds and is not slower."
    )


def _runner_up(objective: Objective, best: Row, other: Row) -> str:
    from pipelines.search.board import gain

    assert best.ms is not None
    assert other.ms is not None
    found = gain(objective, best, other)
    what = (
        "it is less accurate, and the interval leaves 0 out"
        if found.low > 0
        else "no difference in accuracy is shown"
    )
    return (
        f"Runner-up {other.title}: accuracy {other.accuracy:.3f}, {100 * found.value:.1f} points "
        f"less (95 %, paired: {100 * found.low:.1f} to {100 * found.high:.1f}; {what}), in "
        f"{other.ms / best.ms:.2f} of the time and {other.megabytes / best.megabytes:.2f} of the "
        f"bytes."
    )

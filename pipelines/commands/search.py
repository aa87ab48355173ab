"""`fieldlens search TASK`: a network found for this task on this device, or on one with a table."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from pipelines import locks
from pipelines.columns import table
from pipelines.commands import engines
from pipelines.commands.answer import Answer
from pipelines.commands.board import code_of, objective_of
from pipelines.config.search import Controller
from pipelines.errors import ConfigError
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pipelines.reports.search import Found
    from pipelines.search.block_table import Scope
    from pipelines.search.objective import Objective
    from pipelines.search.run import Search
    from pipelines.search.shown import Studies
    from pipelines.search.study import Candidate
    from pipelines.tracking.runs import Run

_EPILOG = """\
What is looked for, and how long, stands in the task's section search: of params.yaml. A call that
was killed goes on where it was; one that finds all done answers at once.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which task, who proposes, and where latency is known from."""
    parser.epilog = _EPILOG
    parser.add_argument("task", metavar="TASK", help="as in params.yaml; a classification")
    parser.add_argument(
        "--retry", action="store_true", help="ask about those again that failed, or were refused"
    )
    device = parser.add_argument_group("for another device")
    device.add_argument(
        "--device-table",
        type=Path,
        metavar="FILE",
        help="latencies of blocks that were measured there, in place of this machine's clock",
    )
    device.add_argument(
        "--write-blocks",
        type=Path,
        metavar="FOLDER",
        help="write the blocks to be measured there, and the table to fill; search nothing",
    )
    engine = parser.add_argument_group("by what candidates are asked and finalists trained")
    engines.add_arguments(engine, local="one after another")
    engines.add_workers(engine, what="networks")
    compared = parser.add_argument_group("to compare controllers", "on the same supernet")
    compared.add_argument(
        "--controllers",
        nargs="+",
        choices=get_args(Controller),
        metavar="NAME",
        help=f"some of {', '.join(get_args(Controller))} in place of params.yaml's",
    )
    compared.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="studies of each, with seeds of their own"
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Search, measure the best again, train the best of these, and tell what was found.

    Raises:
        ConfigError: if there is no such task, it is of another kind, a table of blocks cannot be
            used, or no network is as quick as the target.
        MissingDataError: if `prepare` has not run.
    """
    from pipelines.config.params import load_params

    if arguments.seeds < 1:
        raise ConfigError(f"--seeds: expected a number from 1 (got {arguments.seeds}).")
    engines.check(arguments)
    if engines.is_ray(arguments):
        # Its processes stand in other folders.
        paths = Paths(paths.root.absolute())
    params = load_params(paths.params)
    objective = objective_of(arguments.task, params, paths)
    scope = _scope(objective)
    if arguments.write_blocks is not None:
        from pipelines.search.block_table import write_blocks

        return Answer(write_blocks(scope, arguments.write_blocks))
    search = _search(objective, scope, arguments, paths)
    # A table that cannot be used is told of before the supernet is trained.
    _ = search.evaluation.latency
    controllers = arguments.controllers or [objective.search.controller]
    with locks.hold(paths.task(objective.task).lock, f"search {objective.task}"):
        return _run(
            search, list(dict.fromkeys(controllers)), arguments.seeds, retry=arguments.retry
        )


def _scope(objective: Objective) -> Scope:
    from pipelines.search.block_table import Scope
    from pipelines.search.space import Space

    asked = objective.search
    return Scope(
        Space.of(asked.space),
        objective.train.image_px,
        len(objective.data.summary.labels),
        asked.precision,
    )


def _search(
    objective: Objective, scope: Scope, arguments: argparse.Namespace, paths: Paths
) -> Search:
    from pipelines.search.accuracy import Worth
    from pipelines.search.run import Evaluation, Search
    from pipelines.serving.predictor import processor_name
    from pipelines.stages.code import search_code

    worth = Worth(
        objective.task,
        objective.train,
        objective.search,
        objective.seed,
        objective.data,
        paths,
    )
    table = arguments.device_table
    evaluation = Evaluation(
        worth,
        scope,
        paths.latencies_dir,
        table if table is None else table.absolute(),
        processor_name(),
    )
    search = Search(objective, evaluation, search_code(paths.root), code_of(paths))
    if not engines.is_ray(arguments):
        return search
    from pipelines.scale import boards, searches

    cluster = arguments.workers, arguments.address
    return replace(
        search,
        engine=partial(searches.ray_engine, *cluster),
        cells=partial(boards.ray_engine, *cluster),
    )


def _run(search: Search, controllers: Sequence[Controller], n_seeds: int, *, retry: bool) -> Answer:
    from pipelines.reports.search import Found, write
    from pipelines.search.board import tell_cell
    from pipelines.search.cells import key_of
    from pipelines.search.shown import every
    from pipelines.tracking import runs

    objective = search.objective
    seeds = [objective.seed + number for number in range(n_seeds)]
    own_key = search.records.key(search.evaluation.scope.reference)
    began = time.monotonic()
    with runs.board(
        objective.paths,
        objective.task,
        objective.domain,
        key=key_of([own_key, controllers, seeds]),
        name="search",
    ) as parent:
        parent.params(objective.search.model_dump(mode="json"))
        studies: Studies = {
            controller: [
                search.study(
                    controller, seed=seed, retry=retry, told=_tells(parent, controller, seed)
                )
                for seed in seeds
            ]
            for controller in controllers
        }
        candidates = every(studies)
        searched = time.monotonic()
        elites = search.measured_again(candidates, retry=retry)
        trained = search.trained(
            candidates,
            elites,
            retry=retry,
            told=lambda record: tell_cell(parent, objective.task, record),
        )
        found = Found(
            search,
            studies,
            elites,
            trained,
            minutes=((searched - began) / 60, (time.monotonic() - searched) / 60),
        )
        write(found)
        parent.artifact(objective.paths.task(objective.task).search_dir)
    return _answer(found)


def _tells(parent: Run, controller: str, seed: int) -> Callable[[Candidate], None]:
    """Tells MLflow of a study's candidates, by their numbers."""
    best = -math.inf

    def tell(candidate: Candidate) -> None:
        nonlocal best
        if candidate.score is None or candidate.reward is None:
            return
        # That of the base needed no search.
        best = best if candidate.baseline else max(best, candidate.reward)
        values = {
            "accuracy": candidate.score.accuracy,
            "ratio": candidate.score.ratio,
            "reward": candidate.reward,
            **({} if candidate.baseline else {"best_reward": best}),
        }
        parent.epoch(candidate.number, {f"{controller}-{seed}": values})

    return tell


# -- answer ---------------------------------------------------------------------------------------
def _answer(found: Found) -> Answer:
    from pipelines.search.shown import title_of

    task, elites, trained = found.task, found.elites, found.trained
    complaints = [
        f"{task}: {each.cell.title} has failed: {each.error} (run it again with --retry.)"
        for each in trained.failed
    ]
    refused = [each for each in elites if each.reward is None]
    if refused:
        complaints.append(
            f"{task}: the second latency of {len(refused)} of {len(elites)} of the best was "
            f"refused, and they are left out. Try --retry when this machine has less else to do."
        )
    lines = [found.head, "", "BEST CANDIDATES, measured twice; accuracy of val in the supernet"]
    lines += [
        table(
            ("NETWORK", "ACCURACY", "OF REF.", "AGAIN", "REWARD"),
            [
                (
                    title_of(each.network),
                    f"{each.accuracy:.3f}",
                    f"{each.ratios[0]:.2f}",
                    f"{each.ratios[1]:.2f}",
                    "-" if each.reward is None else f"{each.reward:.4f}",
                )
                for each in elites[:10]
            ],
        )
    ]
    if trained.finalists:
        lines += ["", "FINALISTS, int8; test split, beside the base as the task has it"]
        lines += [table(("NETWORK", "ACCURACY", "95 %", "GAIN", "95 %", "LATENCY", ""), found.rows)]
        lines += ["", *found.advice]
    lines += ["", f"All of it: {found.page}"]
    exit_code = 2 if trained.failed and not trained.finalists else 0
    return Answer("\n".join(lines), tuple(complaints), exit_code)

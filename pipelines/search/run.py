"""A search from the supernet to the finalists, each part of which is kept when it is done.

A call that was killed, or is made again, goes on where the last one was: the supernet from its
checkpoint, the study from its records, finalists from their cells (docs/adr/0038).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pipelines.atomic import file_sha256
from pipelines.config.search import Controller, RewardParams
from pipelines.errors import PipelineError
from pipelines.paths import TaskPaths
from pipelines.search.accuracy import Worth, fields_of
from pipelines.search.block_table import Scope
from pipelines.search.board import CellFunction, gain, is_sound, run_cells
from pipelines.search.board import Engine as CellEngine
from pipelines.search.board import in_this_process as cells_in_this_process
from pipelines.search.cells import Cell, cells_of, read_record
from pipelines.search.cells import Outcome as CellOutcome
from pipelines.search.cells import Record as CellRecord
from pipelines.search.choice import Row, rows_of
from pipelines.search.elites import elites
from pipelines.search.latency import DeviceTable, LatencySource, Measured, ThisMachine, check_target
from pipelines.search.objective import Objective
from pipelines.search.records import Records, Score
from pipelines.search.reward import reward_of
from pipelines.search.space import Network, Space
from pipelines.search.study import Candidate, run_study
from pipelines.serving.predictor import processor_name
from pipelines.serving.trust import Interval


@dataclass(frozen=True)
class Evaluation:
    """A network's score, as a function; plain values that may cross to another process.

    Attributes:
        worth: accuracy on val, in the supernet.
        scope: what latencies are asked for.
        folder: where the table of this machine's blocks is kept.
        device_table: block latencies that were measured elsewhere; None to measure here.
        processor: whose latencies are searched for; another's are an error.
    """

    worth: Worth
    scope: Scope
    folder: Path
    device_table: Path | None
    processor: str

    def __getstate__(self) -> dict[str, object]:
        """Its fields: sessions do not cross, and whoever takes it over opens its own."""
        return fields_of(self)

    def __call__(self, network: Network) -> Score:
        """What a network is worth and costs.

        Raises:
            PipelineError: as supernet and tables say.
        """
        if self.device_table is None and processor_name() != self.processor:
            raise PipelineError(
                f"latency on {processor_name()} does not compare with that on {self.processor}. "
                f"Search on nodes that are alike, or with --device-table."
            )
        (found,) = self.latency.measure([network])
        return Score(
            accuracy=self.worth(network),
            ratio=found.ratio,
            ms=found.ms,
            refusal=found.refused or None,
        )

    @cached_property
    def latency(self) -> LatencySource:
        """This machine's clock, or the table of another device.

        Raises:
            ConfigError: if the table cannot be used.
        """
        if self.device_table is not None:
            return DeviceTable.read(self.device_table, self.scope)
        return ThisMachine(self.scope, self.folder, self.worth.search.table_gap)


@dataclass(frozen=True, slots=True)
class Elite:
    """A candidate whose latency has been measured again.

    Attributes:
        candidate: as it was searched.
        again: the same with the second latency.
        reward: by the mean of both; None where the second was refused.
    """

    candidate: Candidate
    again: Score
    reward: float | None

    @property
    def network(self) -> Network:
        """Which."""
        return self.candidate.network

    @property
    def accuracy(self) -> float:
        """Of val, in the supernet."""
        return self._score.accuracy

    @property
    def ratios(self) -> tuple[float, float]:
        """Of both measurements, that of the search first."""
        return self._score.ratio, self.again.ratio

    @property
    def _score(self) -> Score:
        assert self.candidate.score is not None  # it has a reward
        return self.candidate.score


@dataclass(frozen=True, slots=True)
class Finalist:
    """A network that was trained as the task trains, exported and tested, in int8.

    Attributes:
        row: of the board.
        ratio: its latency to that of the base as the task has it.
        gain: of accuracy over the base, in pairs, on the same test images.
    """

    row: Row
    ratio: float | None
    gain: Interval


@dataclass(frozen=True, slots=True)
class Trained:
    """What the finalists of a search have come to.

    Attributes:
        finalists: that were trained; the base, as the task has it, is not among them.
        rows: of the board: finalists, the base at two sides, and whatever the board had.
        failed: cells without a result.
    """

    finalists: Sequence[Finalist]
    rows: Sequence[Row]
    failed: Sequence[CellRecord]


class Engine(Protocol):
    """Runs a study, here or on a cluster."""

    def __call__(
        self,
        space: Space,
        evaluate: Callable[[Network], Score],
        records: Records,
        controller: Controller,
        n: int,
        *,
        reward: RewardParams,
        seed: int,
        retry: bool = False,
        told: Callable[[Candidate], None] = lambda candidate: None,
    ) -> list[Candidate]:
        """As `study.run_study` does."""


def in_this_process() -> AbstractContextManager[Engine]:
    """The engine that needs no other process."""
    return nullcontext(run_study)


@dataclass(frozen=True)
class Search:
    """A task's search.

    Attributes:
        objective: trains and measures finalists; its sections are the task's.
        evaluation: scores candidates.
        code: stands for the code that scores are made by.
        cell_code: by backbone, what stands for the code that its cells are made by.
        engine: opened where a study is run.
        cells: opened where finalists are trained.
    """

    objective: Objective
    evaluation: Evaluation
    code: str
    cell_code: Callable[[str], str]
    engine: Callable[[], AbstractContextManager[Engine]] = in_this_process
    cells: Callable[[], AbstractContextManager[CellEngine]] = cells_in_this_process

    def study(
        self,
        controller: Controller,
        *,
        seed: int,
        retry: bool = False,
        told: Callable[[Candidate], None] = lambda candidate: None,
    ) -> list[Candidate]:
        """Candidates of one controller and seed; what is known already is not evaluated again.

        Args:
            controller: who proposes.
            seed: of the controller.
            retry: evaluate those again that failed, or whose latency was refused.
            told: hears of each candidate once it is kept.

        Raises:
            ConfigError: if no network of the space is as quick as the target.
            PipelineError: as supernet and tables say.
            StorageError: if the disk is full.
        """
        asked, worth = self.objective.search, self.evaluation.worth
        # Before the supernet, which takes minutes.
        check_target(self.evaluation.latency, self._target)
        # Once, here, and not in each process that evaluates.
        _ = worth.supernet
        with self.engine() as run:
            return run(
                worth.space,
                self.evaluation,
                self.records,
                controller,
                asked.candidates,
                reward=asked.reward,
                seed=seed,
                retry=retry,
                told=told,
            )

    @cached_property
    def records(self) -> Records:
        """What has been found out about networks of this search, whoever asked."""
        return Records(self._files.search_candidates, self._made_of)

    @property
    def _files(self) -> TaskPaths:
        return self.objective.paths.task(self.objective.task)

    @property
    def _made_of(self) -> list[object]:
        evaluation = self.evaluation
        table = evaluation.device_table
        device = evaluation.processor if table is None else file_sha256(table)
        asked = self.objective.search
        return [
            evaluation.worth.key,
            self.code,
            asked.precision,
            asked.table_gap,
            device,
            evaluation.scope.image_px,
        ]

    @property
    def _target(self) -> float:
        """As a share of the reference's latency."""
        asked = self.objective.search.reward
        if asked.target_ms is None:
            return asked.target
        return asked.target_ms / self.evaluation.latency.reference_ms

    def measured_again(
        self, candidates: Sequence[Candidate], *, retry: bool = False
    ) -> list[Elite]:
        """The best candidates and their front, each timed a second time, best by both first.

        Args:
            candidates: of all studies.
            retry: time those once more whose second latency was refused.

        Raises:
            StorageError: if the disk is full.
        """
        asked = self.objective.search
        kept = Records(self._files.search_elites, self._made_of)
        timed = []
        for each in elites(candidates, asked.elites):
            assert each.score is not None  # it has a reward
            record = kept.get(each.network)
            if record is None or (retry and not record.is_sound):
                # By itself, as in the study: what else runs in turn leaves other caches behind.
                (found,) = self.evaluation.latency.measure([each.network])
                record = kept.add(each.network, _with_latency(each.score, found), None, 0.0)
            assert record.score is not None  # what is kept here has one
            reward = _reward_of_both(each.score, record.score, asked.reward)
            timed.append(Elite(each, record.score, reward))
        return sorted(timed, key=lambda each: -1.0 if each.reward is None else -each.reward - 1)

    # -- finalists --------------------------------------------------------------------------------
    def trained(
        self,
        candidates: Sequence[Candidate],
        found: Sequence[Elite],
        *,
        retry: bool = False,
        told: Callable[[CellRecord], None] = lambda record: None,
    ) -> Trained:
        """Train the best of the elites, export and test them, beside the base.

        Args:
            candidates: of all studies; they know how quick the base is at each side.
            found: as `measured_again` gives them.
            retry: train those again that failed, or whose latency was refused.
            told: hears of each cell once it is kept.

        Raises:
            StorageError: if the disk is full.
        """
        objective, files = self.objective, self._files
        sound = [each.network for each in found if each.reward is not None]
        networks = sound[: objective.search.finalists]
        base = self._base_cell(objective.train.image_px)
        cells = [Cell(backbone=each.line, width=1.0, image_px=each.image_px) for each in networks]
        beside = [base, *self._bases_beside(networks, candidates)] if cells else []

        def key(cell: Cell) -> str:
            return objective.key(cell, self.cell_code(cell.backbone))

        def done(record: CellRecord) -> None:
            if is_sound(record):
                objective.forget(record.cell)
            told(record)

        def engine(
            objective: CellFunction,
            cells: Sequence[Cell],
            begun: Callable[[Cell], None],
            done: Callable[[CellOutcome], None],
        ) -> None:
            # Opened where there is something to run: on a cluster that takes seconds.
            with self.cells() as run:
                run(objective, cells, begun, done)

        def file(cell: Cell) -> Path:
            return files.board_cell(cell.name)

        asked = dict.fromkeys([*beside, *cells])
        records = run_cells(list(asked), objective, key, file, engine, retry=retry, told=done)
        others = [
            record
            for cell in cells_of(objective.board)
            if cell not in asked and (record := read_record(file(cell), key(cell))) is not None
        ]
        rows = rows_of(each.result for each in [*records, *others] if each.result is not None)
        int8 = {row.result.cell: row for row in rows if row.precision == "int8"}
        finalists = [
            Finalist(row, _ratio(row, int8[base]), gain(objective, row, int8[base]))
            for cell in cells
            if base in int8 and (row := int8.get(cell)) is not None
        ]
        failed = [record for record in records if record.error is not None]
        return Trained(finalists, rows, failed)

    def _base_cell(self, image_px: int) -> Cell:
        return Cell(backbone=self.evaluation.worth.space.base.base, width=1.0, image_px=image_px)

    def _bases_beside(
        self, networks: Sequence[Network], candidates: Sequence[Candidate]
    ) -> list[Cell]:
        """The base at the side at which it is about as quick as the finalists."""
        space = self.evaluation.worth.space
        ratios = {each.network: each.score.ratio for each in candidates if each.score is not None}
        bases = {
            px: ratios[space.base_at(px)]
            for px in space.params.image_px
            if space.base_at(px) in ratios
        }
        if not bases:
            return []
        wanted = [ratios[each] for each in networks]
        mean = sum(wanted) / len(wanted)
        return [self._base_cell(min(bases, key=lambda px: abs(bases[px] - mean)))]


def _with_latency(score: Score, found: Measured) -> Score:
    own = {"ratio": found.ratio, "ms": found.ms, "refusal": found.refused or None}
    return score.model_copy(update=own)


def _reward_of_both(score: Score, again: Score, params: RewardParams) -> float | None:
    if again.refusal is not None:
        return None
    both = {"ratio": (score.ratio + again.ratio) / 2, "ms": (score.ms + again.ms) / 2}
    return reward_of(score.model_copy(update=both), params)


def _ratio(row: Row, base: Row) -> float | None:
    return None if row.ms is None or base.ms is None else row.ms / base.ms

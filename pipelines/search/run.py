"""A search from the supernet to the finalists, each part of which is kept when it is done.

A call that was killed, or is made again, goes on where the last one was: the supernet from its
checkpoint, the study from its records, finalists from their cells (docs/adr/0038).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.config.search import Controller, SearchParams
from pipelines.data.manifest import in_split
from pipelines.errors import ConfigError
from pipelines.search.accuracy import Worth
from pipelines.search.board import gain, run_cells
from pipelines.search.cells import Cell, CellResult
from pipelines.search.cells import Record as CellRecord
from pipelines.search.choice import Row, rows_of
from pipelines.search.elites import elites
from pipelines.search.latency import LatencySource, Measured, Scope, ThisMachine
from pipelines.search.objective import Objective
from pipelines.search.records import Records, Score
from pipelines.search.space import Network, Space
from pipelines.search.study import Candidate, baselines_of, run_study
from pipelines.serving.predictor import processor_name
from pipelines.serving.trust import Interval

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """A network's score: its worth in the supernet and its latency; plain values that may cross to another process.

    Attributes:
        worth: accuracy on val.
        scope: what latencies are asked for.
        folder: where tables of blocks are kept.
        device_table: block latencies that were measured elsewhere; None to measure here.
    """

    worth: Worth
    scope: Scope
    folder: Path
    device_table: Path | None

    def __call__(self, network: Network) -> Score:
        """What a network is worth and costs."""
        measured = self.latency.measure([network])[0]
        return Score(
            accuracy=self.worth(network),
            ratio=measured.ratio,
            ms=measured.ms,
            refusal=measured.refused or None,
        )

    @cached_property
    def latency(self) -> LatencySource:
        """Whatever tells latencies."""
        return ThisMachine(self.scope, self.folder, self.worth.search.table_gap)

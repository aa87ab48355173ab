"""How long networks take: by this machine's clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from pipelines.export.latency import against_reference
from pipelines.search.graphs import network_onnx
from pipelines.search.space import Network, Space
from pipelines.serving.sessions import Precision, make_unvetted_session

#: Networks that are timed in turn with one reference.
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Measured:
    """A network's latency.

    Attributes:
        ms: of one picture, on one thread.
        ratio: to the reference's, the base at the task's side.
        gap: between two passes, as a share of the smaller; 0 of a table.
        source: where it is from.
        refused: why it is no measurement; empty where it is one.
    """

    ms: float
    ratio: float
    gap: float
    source: Literal["clock", "table"]
    refused: str = ""

    @property
    def is_steady(self) -> bool:
        """Whether it may be used."""
        return not self.refused


@dataclass(frozen=True, slots=True)
class Scope:
    """What latencies are asked for.

    Attributes:
        space: of all networks that may be asked about.
        image_px: side at which the space's base is the reference.
        n_classes: of the head.
        precision: of the files.
    """

    space: Space
    image_px: int
    n_classes: int
    precision: Precision

    @property
    def reference(self) -> Network:
        """What all are compared with."""
        return self.space.base_at(self.image_px)


class LatencySource(Protocol):
    """Whatever tells networks' latencies."""

    scope: Scope

    def measure(self, networks: Sequence[Network]) -> list[Measured]:
        """One for each network, in order."""
        ...


class ThisMachine:
    """ONNX Runtime here, on one thread, in turns with the reference.

    Args:
        folder: keeps the table of blocks.
        table_gap: by which a network may differ from the sum of its blocks, as a share of it.
    """

    def __init__(
        self,
        scope: Scope,
        folder: Path,
        table_gap: float,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.scope = scope
        self._folder = folder
        self._table_gap = table_gap
        self._clock = clock

    def measure(self, networks: Sequence[Network]) -> list[Measured]:
        """Each network beside the reference; refused where two passes do not agree."""
        return [found for some in _batches(networks) for found in self._measure(some)]

    @cached_property
    def _reference_call(self) -> Callable[[], object]:
        return self._call(self.scope.reference)

    def _call(self, network: Network) -> Callable[[], object]:
        session = make_unvetted_session(
            network_onnx(network, self.scope.n_classes, self.scope.precision)
        )
        given = session.get_inputs()[0]
        shape = [size if isinstance(size, int) else 1 for size in given.shape]
        pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return lambda: session.run(None, {given.name: pixels})

    def _measure(self, networks: Sequence[Network]) -> list[Measured]:
        calls = {str(index): self._call(each) for index, each in enumerate(networks)}
        found = against_reference(calls, self._reference_call, clock=self._clock)
        return [
            Measured(
                ms=each.ms,
                ratio=each.ratio,
                gap=each.gap,
                source="clock",
                refused="" if each.is_steady else f"two passes differ by {each.gap:.0%}",
            )
            for each in (found[name] for name in calls)
        ]


def _batches(networks: Sequence[Network]) -> Iterator[Sequence[Network]]:
    for start in range(0, len(networks), _AT_ONCE):
        yield networks[start : start + _AT_ONCE]

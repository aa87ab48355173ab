"""How long networks take: by this machine's clock, or by a table of blocks from elsewhere.

Both compare with the same reference, the space's base at the task's side, in the precision that is
searched in, so that a ratio means the same. A search goes where a clock errs: what has been refused
here must have no reward (docs/experiments/search.md).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import onnxruntime as ort

from pipelines.errors import ConfigError
from pipelines.export.latency import against_reference
from pipelines.search import graphs
from pipelines.search.block_table import Scope, Sum, Table, read_table, write_table
from pipelines.search.graphs import Part, network_onnx, part_onnx
from pipelines.search.space import Network
from pipelines.serving.predictor import processor_name
from pipelines.serving.sessions import make_unvetted_session

_LOG = logging.getLogger(__name__)

#: Files that are timed in turn with one reference: networks, and blocks, which take less.
_NETWORKS_AT_ONCE, _PARTS_AT_ONCE = 8, 64


@dataclass(frozen=True, slots=True)
class Measured:
    """A network's latency.

    Attributes:
        ms: of one picture, on one thread.
        ratio: to the reference's.
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


class LatencySource(Protocol):
    """Whatever tells networks' latencies."""

    @property
    def scope(self) -> Scope:
        """What it is asked for."""

    @property
    def reference_ms(self) -> float:
        """Of the reference."""

    def measure(self, networks: Sequence[Network]) -> list[Measured]:
        """One for each network, in order."""


def lowest(source: LatencySource) -> Measured:
    """The least latency of a space: of its smallest network, with blocks fused or not.

    A fused block has more multiply-adds, and is quicker where channels are few.

    Raises:
        ConfigError: if none of these can be measured.
    """
    space = source.scope.space
    smallest = space.choice(space.smallest)
    fusible = [each.name for each in space.decisions if "er" in each.options]
    flips = [[], *([name] for name in fusible), fusible]
    networks = dict.fromkeys(
        space.network(smallest | dict.fromkeys(names, "er")) for names in flips
    )
    found = source.measure(list(networks))
    if steady := [each for each in found if each.is_steady]:
        return min(steady, key=lambda each: each.ratio)
    raise ConfigError(
        f"the latency of the smallest network of the space: {found[0].refused}. Try again when "
        f"this machine has less else to do."
    )


def check_target(source: LatencySource, target: float) -> Measured:
    """The least latency of a space, if it is no more than that.

    Args:
        target: as a share of the reference's latency.

    Raises:
        ConfigError: if it is more, or as `lowest`.
    """
    least = lowest(source)
    if least.ratio > target:
        raise ConfigError(
            f"params.yaml: search.reward: the target, {target:.3g} of the reference's latency "
            f"({target * source.reference_ms:.3g} ms), is below the smallest network of the space, "
            f"which takes {least.ratio:.3g} of it ({least.ms:.3g} ms). Raise the target, or give "
            f"search.space smaller image_px, widths or expansions."
        )
    return least


# -- a table from elsewhere -----------------------------------------------------------------------
@dataclass(frozen=True)
class DeviceTable:
    """Another device, by what its blocks take."""

    scope: Scope
    sum: Sum

    @classmethod
    def read(cls, path: Path, scope: Scope) -> DeviceTable:
        """A table that has all blocks which a search of that scope may ask about.

        Raises:
            ConfigError: as `read_table`; if it lacks a block; or if its whole networks contradict
                the sums of their blocks.
        """
        table = read_table(path, scope.precision)
        lacking = [part for part in scope.parts if scope.key(part) not in table]
        if lacking:
            raise ConfigError(
                f"{path}: {len(lacking):,} of the {len(scope.parts):,} blocks that the space may "
                f"choose have no row; the first is {scope.key(lacking[0])}. Write the files with "
                f"`fieldlens search TASK --write-blocks FOLDER`, measure {scope.key(lacking[0])}"
                f".onnx and give it a row, or take its option out of search.space."
            )
        found = Sum.fitted(scope, table)
        if found.scale <= 0:
            raise ConfigError(
                f"{path}: the {found.n_anchors} whole networks do not take longer where the sum of "
                f"their blocks does (scale {found.scale:.2f}). Expected milliseconds of one device "
                f"in every row; measure both again."
            )
        return cls(scope, found)

    @cached_property
    def reference_ms(self) -> float:
        """Of the reference, by the table."""
        return self.sum.ms(self.scope.reference)

    def measure(self, networks: Sequence[Network]) -> list[Measured]:
        """What the table says; nothing is run."""
        return [
            Measured(ms=ms, ratio=ms / self.reference_ms, gap=0.0, source="table")
            for ms in (self.sum.ms(each) for each in networks)
        ]


# -- this machine ---------------------------------------------------------------------------------
class ThisMachine:
    """ONNX Runtime here, on one thread, in turns with the reference, and doubted by a table.

    Of each block that networks have a latency is kept, measured when it is first met. A network
    that differs from the sum of its blocks is measured again, with its blocks, and then refused.
    How a sum becomes a latency is found on the scope's whole networks, so that a network's answer
    depends on no other's.

    Args:
        scope: what is asked for.
        folder: keeps the table, a file a processor, runtime and scope.
        table_gap: by which a network may differ from the sum of its blocks, as a share of it.
        clock: in seconds.
    """

    def __init__(
        self,
        scope: Scope,
        folder: Path,
        table_gap: float,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self.scope = scope
        self._table_gap = table_gap
        self._clock = clock
        said = repr((processor_name(), ort.__version__, scope.image_px, scope.n_classes))
        # Files that are written otherwise are other blocks.
        writer = Path(graphs.__file__).read_bytes()
        key = hashlib.sha256(said.encode() + writer).hexdigest()[:12]
        self.table_path = folder / f"{scope.precision}-{scope.image_px}px-{key}.csv"

    def measure(self, networks: Sequence[Network]) -> list[Measured]:
        """Each beside the reference; refused where passes, or the table, do not agree."""
        return [
            each
            for start in range(0, len(networks), _NETWORKS_AT_ONCE)
            for each in self._checked(networks[start : start + _NETWORKS_AT_ONCE])
        ]

    @cached_property
    def reference_ms(self) -> float:
        """Of the reference, when it was first measured here; later ratios are to the same."""
        return self._table[self.scope.key(self.scope.reference)]

    @cached_property
    def sum(self) -> Sum:
        """Of the blocks that have been met, fitted to the scope's whole networks."""
        anchors = self.scope.anchors
        self._fill([part for each in anchors for part in self.scope.parts_of(each)])
        for start in range(0, len(anchors), _NETWORKS_AT_ONCE):
            some = [
                each
                for each in anchors[start : start + _NETWORKS_AT_ONCE]
                if self.scope.key(each) not in self._table
            ]
            for network, found in zip(some, self._timed(some), strict=True):
                if found.is_steady:
                    self._table[self.scope.key(network)] = found.ratio * self.reference_ms
        self._keep()
        fitted = Sum.fitted(self.scope, self._table)
        _LOG.info(
            "a latency is %.3f ms and %.2f of its blocks' sum, by %d networks",
            fitted.offset,
            fitted.scale,
            fitted.n_anchors,
        )
        return fitted

    def _checked(self, networks: Sequence[Network]) -> list[Measured]:
        found = self._timed(networks)
        expected = self.sum
        self._fill([part for each in networks for part in self.scope.parts_of(each)])
        doubted = [
            index
            for index, each in enumerate(found)
            if self._doubt(each, expected, networks[index])
        ]
        # Where passes agree, it may be the table that errs.
        parts = [
            part
            for index in doubted
            if found[index].is_steady
            for part in self.scope.parts_of(networks[index])
        ]
        self._fill(parts, anew=True)
        again = self._timed([networks[index] for index in doubted])
        for index, each in zip(doubted, again, strict=True):
            found[index] = replace(each, refused=self._doubt(each, expected, networks[index]))
        return found

    def _doubt(self, found: Measured, expected: Sum, network: Network) -> str:
        if found.refused:
            return found.refused
        ratio = expected.ms(network) / self.reference_ms
        if abs(found.ratio / ratio - 1) <= self._table_gap:
            return ""
        return f"measured as {found.ratio:.2f} of the reference, its blocks say {ratio:.2f}"

    def _timed(self, networks: Sequence[Network]) -> list[Measured]:
        calls = {str(index): self._session(each) for index, each in enumerate(networks)}
        found = against_reference(calls, self._reference, clock=self._clock) if calls else {}
        return [
            Measured(
                ms=each.ratio * self.reference_ms,
                ratio=each.ratio,
                gap=each.gap,
                source="clock",
                refused="" if each.is_steady else f"two passes differ by {each.gap:.0%}",
            )
            for each in (found[name] for name in calls)
        ]

    # -- the table --------------------------------------------------------------------------------
    @cached_property
    def _reference(self) -> Callable[[], object]:
        return self._session(self.scope.reference)

    def _session(self, network: Network) -> Callable[[], object]:
        return asking(network_onnx(network, self.scope.n_classes, self.scope.precision))

    @cached_property
    def _table(self) -> Table:
        """As it was kept; the reference's own latency is its first row."""
        if self.table_path.is_file():
            return read_table(self.table_path, self.scope.precision)
        # Beside another session of the same file: who runs twice in a row finds its caches full.
        twin = {"twin": self._session(self.scope.reference)}
        found = against_reference(twin, self._reference, clock=self._clock)
        return {self.scope.key(self.scope.reference): found["twin"].reference_ms}

    def _fill(self, parts: Sequence[Part], *, anew: bool = False) -> None:
        """Measure the blocks that the table does not have, or all that are given."""
        table, scope = self._table, self.scope
        wanted = [part for part in dict.fromkeys(parts) if anew or scope.key(part) not in table]
        for start in range(0, len(wanted), _PARTS_AT_ONCE):
            some = wanted[start : start + _PARTS_AT_ONCE]
            calls = {scope.key(part): asking(part_onnx(part, scope.precision)) for part in some}
            found = against_reference(calls, self._reference, clock=self._clock)
            table |= {name: each.ratio * self.reference_ms for name, each in found.items()}
        if wanted:
            self._keep()

    def _keep(self) -> None:
        write_table(self.table_path, self._table)


def asking(data: bytes) -> Callable[[], object]:
    """A run of a file on noise, one picture, on one thread."""
    session = make_unvetted_session(data)
    rng = np.random.default_rng(0)
    feed = {}
    for given in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in given.shape]
        feed[given.name] = (
            rng.integers(0, 256, shape, dtype=np.uint8)
            if given.type == "tensor(uint8)"
            else rng.random(shape, dtype=np.float32)
        )
    return lambda: session.run(None, feed)

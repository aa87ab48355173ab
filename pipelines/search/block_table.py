"""What each block of a network takes, and what their sum says about the whole.

A table is a CSV file with a row a block, or a whole network, and its milliseconds. A name holds all
that a cost depends on (`graphs.Part`), so that a table serves every space and task that it has the
blocks of. The sum of blocks is no latency: each was measured with its own entry and exit. Networks
that were measured whole say by which offset and scale it becomes one.

References:
    Cai et al. 2019, "ProxylessNAS", section 3.2 and appendix B: latency as a sum over blocks, from
    a table that was measured on a phone.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from pipelines.atomic import new_folder, write_text
from pipelines.backbones.architecture import parse
from pipelines.errors import ConfigError
from pipelines.search.graphs import Part, all_parts, network_onnx, part_onnx, parts_of
from pipelines.search.space import Network, Space
from pipelines.serving.sessions import Precision

TABLE_NAME = "blocks.csv"
COLUMNS = ("block", "ms")
#: Classes of a table's heads are a multiple of it, so that tasks share them.
_CLASSES_STEP = 64
#: Networks of a space that are measured whole, beside the base at each side and the two extremes.
_N_RANDOM = 7


@dataclass(frozen=True)
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

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All that a table must have: of the space and of the reference."""
        of_space = dict.fromkeys(all_parts(self.space, self._classes))
        return tuple(of_space | dict.fromkeys(parts_of(self.reference, self._classes)))

    @cached_property
    def anchors(self) -> tuple[Network, ...]:
        """Networks that are measured whole: the base, the extremes, and some at random.

        Drawn once for all, so that who resumes finds the same.
        """
        space = self.space
        rng = np.random.default_rng(0)
        drawn = [space.random(rng) for _ in range(_N_RANDOM)]
        sides = sorted({self.image_px, *(part.in_px for part in self.parts if part.is_first)})
        bases = [space.base_at(px) for px in sides]
        return tuple(dict.fromkeys([*bases, space.smallest, space.largest, *drawn]))

    @property
    def _classes(self) -> int:
        return -(-self.n_classes // _CLASSES_STEP) * _CLASSES_STEP

    def parts_of(self, network: Network) -> list[Part]:
        """A network's, as a table has them."""
        return list(parts_of(network, self._classes))

    def key(self, what: Part | Network) -> str:
        """A row's name, and a file's without its suffix."""
        name = what.name if isinstance(what, Part) else f"{what.line}@{what.image_px}px"
        return f"{name}-{self.precision}"


Table = dict[str, float]
_NETWORK = re.compile(r"(?P<line>[^@]+)@(?P<px>[1-9]\d{0,3})px-(?:fp32|int8)")


def network_of(name: str) -> Network | None:
    """The whole network that a row is about; None where it is a block's.

    Raises:
        ConfigError: if the network cannot be read.
    """
    match = _NETWORK.fullmatch(name)
    return Network(parse(match["line"]), int(match["px"])) if match else None


def read_table(path: Path, precision: Precision) -> Table:
    """Milliseconds by name.

    Raises:
        ConfigError: if the file is no table, a number is none, a name stands twice, or a row is of
            another precision; names the row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise ConfigError(
            f"{path}: cannot be read as a table of blocks: {err}. Expected a CSV file with the "
            f"columns {','.join(COLUMNS)}."
        ) from err
    rows = csv.reader(io.StringIO(text))
    header = next(rows, [])
    if tuple(header) != COLUMNS:
        raise ConfigError(
            f"{path}: line 1: expected the columns {','.join(COLUMNS)}, got "
            f"{','.join(header) or 'nothing'}. `--write-blocks` writes a {TABLE_NAME} to fill."
        )
    found: Table = {}
    for row in rows:
        if not row:
            continue
        name, ms = _checked_row(f"{path}: line {rows.line_num}", row, precision)
        if name in found:
            raise ConfigError(
                f"{path}: line {rows.line_num}: {name} stands twice, with {found[name]:g} and "
                f"{ms:g} ms. Keep one row."
            )
        found[name] = ms
    return found


def _checked_row(where: str, row: Sequence[str], precision: Precision) -> tuple[str, float]:
    if len(row) != len(COLUMNS):
        raise ConfigError(
            f"{where}: expected {len(COLUMNS)} cells, {' and '.join(COLUMNS)}; got {len(row)}: "
            f"{','.join(row)[:80]}."
        )
    name, text = (cell.strip() for cell in row)
    measured_in = name.rpartition("-")[2]
    if measured_in not in get_args(Precision):
        raise ConfigError(
            f"{where}: {name!r} names no block. Expected a file's name as `--write-blocks` gives "
            f"it, without .onnx, such as ir_k3_s1_i24_h144_c24_56px-{precision}."
        )
    try:
        network_of(name)
    except ConfigError as err:
        raise ConfigError(f"{where}: names no network: {err}") from err
    if measured_in != precision:
        raise ConfigError(
            f"{where}: {name} was measured in {measured_in}, and this search asks for {precision}. "
            f"Write the blocks anew and measure those, or set search.precision: {measured_in}."
        )
    try:
        ms = float(text)
    except ValueError:
        ms = math.nan
    if not (math.isfinite(ms) and ms > 0):
        raise ConfigError(
            f"{where}: {name}: expected milliseconds above 0, got {text or 'nothing'}. Measure "
            f"{name}.onnx and put its mean there."
        )
    return name, ms


def write_table(path: Path, table: Mapping[str, float]) -> None:
    """Replace a table in one step."""
    lines = [",".join(COLUMNS), *(f"{name},{ms:.5f}" for name, ms in table.items())]
    write_text(path, "\n".join(lines) + "\n")


@dataclass(frozen=True, slots=True)
class Sum:
    """The latency that a network's blocks add up to.

    Attributes:
        scope: what is asked for.
        table: has all its parts.
        offset: in ms.
        scale: of the sum.
        n_anchors: networks that offset and scale come from.
    """

    scope: Scope
    table: Mapping[str, float]
    offset: float = 0.0
    scale: float = 1.0
    n_anchors: int = 0

    @classmethod
    def fitted(cls, scope: Scope, table: Mapping[str, float]) -> Sum:
        """With the offset and scale that fit the table's whole networks best.

        Least squares of the errors as shares of the latency; with one network, a scale alone; with
        none, the plain sum.
        """
        plain = cls(scope, table)
        rows = [(network, ms) for name, ms in table.items() if (network := network_of(name))]
        # A table of a larger space knows networks that this one has not, and they tell as much.
        whole = [(plain.ms(each), ms) for each, ms in rows if plain.knows(each)]
        if not whole:
            return plain
        sums, times = np.array(whole).T
        columns = [sums / times] if len(whole) == 1 else [1 / times, sums / times]
        *offset, scale = np.linalg.lstsq(np.stack(columns, 1), np.ones(len(whole)))[0]
        return cls(scope, table, float(sum(offset)), float(scale), len(whole))

    def ms(self, network: Network) -> float:
        """Of one picture."""
        return self.offset + self.scale * sum(self.table[name] for name in self._rows_of(network))

    def knows(self, network: Network) -> bool:
        """Whether the table has all of its parts."""
        return all(name in self.table for name in self._rows_of(network))

    def _rows_of(self, network: Network) -> list[str]:
        return [self.scope.key(part) for part in self.scope.parts_of(network)]


def write_blocks(scope: Scope, folder: Path) -> str:
    """Fill a new folder with a file a block and a table to fill, for another device.

    Returns:
        What was written, for people.

    Raises:
        ConfigError: if the folder is there and not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder}: is there already. Expected a folder that is not there yet; remove it or "
            f"name another."
        )
    n_bytes = 0
    names = []
    with new_folder(folder) as fresh:
        for name, data in _files(scope):
            names.append(name)
            n_bytes += len(data)
            (fresh / f"{name}.onnx").write_bytes(data)
        lines = [",".join(COLUMNS), *(f"{name}," for name in names)]
        (fresh / TABLE_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return (
        f"{len(scope.parts):,} blocks and {len(scope.anchors)} whole networks in "
        f"{scope.precision}, {n_bytes / 1e6:.0f} MB"
    )


def _files(scope: Scope) -> Iterator[tuple[str, bytes]]:
    for network in scope.anchors:
        yield scope.key(network), network_onnx(network, scope.n_classes, scope.precision)
    for part in scope.parts:
        yield scope.key(part), part_onnx(part, scope.precision)

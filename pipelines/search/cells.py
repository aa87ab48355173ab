"""The cells of a board: what is asked of each, and what each has come to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipelines.atomic import write_text
from pipelines.config.board import BoardParams
from pipelines.errors import ConfigError
from pipelines.export.latency import Latency
from pipelines.serving.bundle import title_of
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval

PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cell(_Part):
    """A network: trained once, and tested in each precision."""

    backbone: str
    width: float
    image_px: int

    @property
    def name(self) -> str:
        """For a file: ``mobilenet_v2-x0.5-160px``; a line of text by the beginning of its hash."""
        return f"{title_of(self.backbone, 1)}-x{self.width:g}-{self.image_px}px"

    @property
    def title(self) -> str:
        """For a person."""
        return f"{title_of(self.backbone, self.width)}, {self.image_px} px"


class Variant(_Part):
    """One precision of a trained network; metrics of the test split."""

    accuracy: Interval
    macro_f1: Interval
    #: By label; without those that no test image has.
    recall: dict[str, Interval]
    #: Index of each test image's answer, in the order of the manifest.
    answers: tuple[int, ...]
    size_bytes: int
    #: Activations that are held at once.
    peak_bytes: int
    #: On one thread.
    latency: Latency


class CellResult(_Part):
    """What a cell has come to."""

    cell: Cell
    multiply_adds: int
    #: Without those of batch norms.
    parameters: int
    variants: dict[Precision, Variant]
    #: How int8 was made, the share of val answers that it shares with fp32, and which of the
    #: task's bounds it missed there.
    int8_remedy: str
    int8_agreement: float
    int8_missed: tuple[str, ...]
    #: Latencies of another are no match.
    processor: str


class Outcome(_Part):
    """What has become of a cell: one of result, error and stopped."""

    cell: Cell
    result: CellResult | None = None
    error: str | None = None
    #: Why its training was ended before its time, as `--stop-early` asks.
    stopped: str | None = None

    @property
    def why_none(self) -> str | None:
        """Why there is no result; None if there is one."""
        return self.stopped or self.error


class Record(Outcome):
    """A cell's file: what has become of it, and of what it was made."""

    key: str


def cells_of(params: BoardParams) -> list[Cell]:
    """Every cell, backbone by backbone."""
    return [
        Cell(backbone=backbone, width=width, image_px=px)
        for backbone, widths in params.backbones.items()
        for width in widths
        for px in params.image_px
    ]


def restricted(
    cells: list[Cell],
    backbones: Collection[str],
    widths: Collection[float],
    image_px: Collection[int],
) -> list[Cell]:
    """The cells that a command line names; an empty list of it names all.

    Raises:
        ConfigError: if something named is of no cell.
    """
    for option, named, known in (
        ("--backbones", backbones, [cell.backbone for cell in cells]),
        ("--widths", widths, [cell.width for cell in cells]),
        ("--image-px", image_px, [cell.image_px for cell in cells]),
    ):
        if unknown := [each for each in named if each not in known]:
            raise ConfigError(
                f"{option}: the board has no {unknown[0]}. Expected some of "
                f"{', '.join(map(str, dict.fromkeys(known)))}, or another in the task's section "
                f"board: of params.yaml."
            )
    found = [
        cell
        for cell in cells
        if (not backbones or cell.backbone in backbones)
        and (not widths or cell.width in widths)
        and (not image_px or cell.image_px in image_px)
    ]
    if not found:
        raise ConfigError(
            f"--backbones, --widths, --image-px: no cell of the board is of all that is named. "
            f"Expected one of {', '.join(cell.name for cell in cells)}."
        )
    return found


def key_of(parts: object) -> str:
    """A hash of all that a cell depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_record(path: Path, record: Record) -> None:
    """Keep a cell's record, whole or not at all."""
    write_text(path, record.model_dump_json() + "\n")


def read_record(path: Path, key: str) -> Record | None:
    """A cell's record; None if there is none, or it was made of something else."""
    try:
        record = Record.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return record if record.key == key else None

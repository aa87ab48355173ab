"""What a command gives back to the command line, and how a table looks in a terminal.

Commands compute and return; only `pipelines.cli` prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What to show.

    Attributes:
        text: the result, for stdout; may be empty.
        complaints: one line each, for stderr.
        exit_code: 0 when all went well, 2 when something needs the user.
    """

    text: str
    complaints: tuple[str, ...] = ()
    exit_code: int = 0


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns, two spaces apart, without a line break at the end.

    Args:
        header: names of the columns.
        rows: as many cells each as the header has.
    """
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def shown(name: str) -> str:
    """A file name as it is if it prints on one line, quoted with escapes if not.

    Args:
        name: any file name, line breaks and undecodable bytes included.
    """
    return name if name.isprintable() and name else repr(name)

"""What a command gives back to the command line.

Commands compute and return; only `pipelines.cli` prints.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.columns import table as table


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


def shown(name: str) -> str:
    """A file name as it is if it prints on one line, quoted with escapes if not.

    Args:
        name: any file name, line breaks and undecodable bytes included.
    """
    return name if name.isprintable() and name else repr(name)

"""What a command gives back: commands compute and return, only `pipelines.cli` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What to show.

    Attributes:
        text: the result, for stdout; may be empty.
        complaints: one line each, for stderr.
        exit_code: 0 when all went well, 2 when something needs the user.
    """

    text: str = ""
    complaints: tuple[str, ...] = ()
    exit_code: int = 0

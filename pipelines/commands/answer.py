"""What a command gives back: commands compute and return, only `pipelines.cli` prints."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answer:
    """What to show."""

    #: For stdout; may be empty.
    text: str = ""
    #: One line each, for stderr.
    complaints: tuple[str, ...] = ()
    exit_code: int = 0

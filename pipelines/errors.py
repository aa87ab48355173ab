"""Everything that a user can act on, in one tree; what each message names stands in its class.

A message reads: what, where, expected, got, next step. Nothing else in the project prints an error;
`pipelines.cli` shows the message of a `PipelineError` as one line on stderr.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Something that the user can mend; the message is one line that says how. Exit code 2."""

    exit_code = 2


class ConfigError(PipelineError):
    """params.yaml, card.yaml or a command line breaks a rule: file, key, rule, value."""


class DataError(PipelineError):
    """A data set as a whole cannot be used: too few classes, too many bad files."""


class MissingDataError(DataError):
    """A file that an earlier command makes is not there; names the command."""


class CorruptImageError(DataError):
    """One file is not an image that may enter the pipeline."""

    def __init__(self, name: str, reason: str) -> None:
        """Keep the reason apart, so that quarantine.csv can list it.

        Args:
            name: the file as the user knows it.
            reason: what is wrong, without the name, e.g. ``truncated: 512 bytes are missing``.
        """
        super().__init__(f"{name!r} cannot be used as an image: {reason}.")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[CorruptImageError], tuple[str, str]]:
        """Rebuild from both arguments: the error crosses process boundaries in `prepare`."""
        return (type(self), (self.name, self.reason))


class SourceError(DataError):
    """A source cannot be fetched, or what arrived is not what was promised."""


class LeakageError(DataError):
    """A group, or the same bytes, in two splits: the first three, and how many."""


class WeightsError(PipelineError):
    """No provider gave the named weights: what was tried, where to put the file."""


class BundleError(PipelineError):
    """A model bundle lacks a file, has a wrong hash or an unknown schema_version."""


class ParityError(PipelineError):
    """Two forms of one model disagree: gap, tolerance, worst example."""


class BusyError(PipelineError):
    """Another process works on the same task: its process id and lock file."""


class RanksError(PipelineError):
    """Processes of one training disagree, or one of them is gone: which, in what."""


class StorageError(PipelineError):
    """The disk is full or may not be written: path and the system's reason."""


class GateError(PipelineError):
    """A model misses a floor or a bound, and is not released: metric, value, bound."""

    exit_code = 3


#: Of the line that stands for an error among many.
_MAX_CHARACTERS = 400


def in_one_line(err: BaseException) -> str:
    """An error that is one of many, in a record; what is no `PipelineError` is named."""
    words = " ".join(str(err).split())[:_MAX_CHARACTERS]
    return words if isinstance(err, PipelineError) else f"{type(err).__name__}: {words}"

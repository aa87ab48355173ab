"""How many processes or threads work at a time: a fact of the machine, not of a result."""

from __future__ import annotations

import os

from pipelines.errors import ConfigError


def n_workers() -> int:
    """Processes or threads to use: as ``FIELDLENS_WORKERS`` says, else one a processor core.

    Raises:
        ConfigError: if it is not a whole number from 1.
    """
    return n_workers_of(os.environ.get("FIELDLENS_WORKERS"))


def n_workers_of(environment: str | None) -> int:
    """The same, from a value.

    Args:
        environment: the value of ``FIELDLENS_WORKERS``, or None.

    Raises:
        ConfigError: if it is not a whole number from 1.
    """
    if not environment:
        return os.cpu_count() or 1
    if not environment.isdecimal() or int(environment) < 1:
        raise ConfigError(
            f"FIELDLENS_WORKERS: expected a whole number from 1 (got {environment!r}). "
            f"Unset it to use every processor core."
        )
    return int(environment)

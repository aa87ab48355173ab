"""How many workers there are: the environment's word, else one a core."""

from __future__ import annotations

import os

import pytest

from pipelines.data.workers import n_workers, n_workers_of
from pipelines.errors import ConfigError


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("", None)])
def test_workers_are_the_machines_unless_told(value, expected, monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", value)
    assert n_workers() == expected if expected else n_workers() >= 1


@pytest.mark.parametrize(
    ("environment", "expected"), [(None, os.cpu_count()), ("", os.cpu_count()), ("3", 3)]
)
def test_workers_come_from_the_environment(environment: str | None, expected: int) -> None:
    assert n_workers_of(environment) == expected


@pytest.mark.parametrize("environment", ["0", "-1", "two", "1.5", " "])
def test_bad_number_of_workers_is_refused(environment: str) -> None:
    with pytest.raises(ConfigError, match="FIELDLENS_WORKERS"):
        n_workers_of(environment)

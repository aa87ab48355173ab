from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.sources.intake import Intake
from tests.faulty_site import Site, serving_site


@pytest.fixture
def intake(tmp_path: Path) -> Callable[..., Intake]:
    """Makes an intake into ``raw`` of the test's folder."""

    def make(max_bytes: int = 10_000_000, **options: object) -> Intake:
        (tmp_path / "raw").mkdir(exist_ok=True)
        return Intake(tmp_path / "raw", "fish", max_bytes=max_bytes, **options)

    return make


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving_site() as site:
        yield site

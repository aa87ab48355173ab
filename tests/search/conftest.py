from __future__ import annotations

import pytest
import torch

from pipelines.paths import Paths
from tests.tiny_board import make_project, with_toy


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", "1")
    torch.set_num_threads(1)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def project(tiny_project: Paths, tmp_path, monkeypatch) -> Paths:
    """The tiny task, prepared, with a board of two cells."""
    with_toy(monkeypatch, tmp_path / "weights")
    return make_project(tiny_project)

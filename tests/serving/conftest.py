"""The tiny network, as fixture."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def tiny_onnx() -> bytes:
    # Heavy, and of use to few of the tests here.
    from tests import tiny_network

    return tiny_network.tiny_onnx()

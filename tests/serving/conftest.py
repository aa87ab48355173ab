"""The tiny network, and bundles that are changed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent.parent / "golden"
#: An operating point, as a bundle has it.
POINT = json.loads((GOLDEN / "bundle_schema_3.json").read_text(encoding="utf-8"))[
    "operating_points"
]["red_tile"]


@pytest.fixture(scope="session")
def tiny_onnx() -> bytes:
    # Heavy, and of use to few of the tests here.
    from tests import tiny_network

    return tiny_network.tiny_onnx()


def edited(path: Path, **changes) -> Path:
    """The bundle in a file with keys that have other values; ``a__b`` is ``b`` within ``a``."""
    document = json.loads(path.read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = document
        for parent in parents:
            part = part[int(parent) if isinstance(part, list) else parent]
        if value is KeyError:
            del part[last]
        else:
            part[last] = value
    path.write_text(json.dumps(document))
    return path

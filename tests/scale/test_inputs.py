"""Pictures of a store are read by their addresses; the command's tests hold the rest."""

from __future__ import annotations

import pytest

from pipelines.errors import CorruptImageError
from pipelines.scale.inputs import Input, read_input
from tests.hub import COMMIT
from tests.sources.test_stores import FILES, hub

__all__ = ["hub"]


def test_pictures_of_repositories_of_the_hub_are_read(hub):
    for path in ("plants/healthy/a.jpg", "other/d.jpg"):
        address = f"hf://datasets/owner/plants@{COMMIT}/{path}"
        assert read_input(Input(address, address)) == FILES[path]
    for absent in (
        "hf://datasets/owner/absent/a.jpg",
        "hf://datasets/owner/plants/a.jpg",
        "hf://a",
    ):
        with pytest.raises(CorruptImageError, match="cannot be read"):
            read_input(Input(absent, absent))

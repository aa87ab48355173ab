"""The decoding pass: order, verdicts, any number of workers; a patient's files are one group."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.data.decoding import Refused, Seen, by_patient, decode, examine, examine_all
from pipelines.data.fingerprints import THUMBNAIL_PX
from pipelines.data.images import open_image
from pipelines.data.manifest import Record
from pipelines.data.pixel_range import Reading
from tests import dicom_files as dcm


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
    names = ["absent.png", "text.png", "small.png", "dangling.png"]
    seen, refused = decode(tmp_path, names, 16, Reading(), "files")
    assert seen == []
    assert [(each.kind, each.reason.split(" (")[0]) for each in refused] == [
        ("missing", "the file is listed but is not there"),
        ("unreadable", "not an image of a known format"),
        ("too_small", "15 x 15 px; the shorter side must have at least 16 px"),
        ("unreadable", "cannot be read"),
    ]


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


# -- patients -------------------------------------------------------------------------------------
def scan(seed: int, patient: str) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 4096, (8, 8)).astype(np.float32)
    pixels = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
    whole = pixels.clip(0, 4095).astype(np.uint16)
    return dcm.dicom(whole, WindowCenter=2048, WindowWidth=4096, PatientID=patient)


def grouped(folder, **groups):
    """The groups that scans of one patient get, by name; those stated are not empty."""
    for n, name in enumerate(groups):
        (folder / name).write_bytes(scan(n, "ANON"))
    records = {name: Record(name, "oak", group or name) for name, group in groups.items()}
    seen, _ = decode(folder, list(records), 16, Reading(), "scans")
    return {path: record.group for path, record in by_patient(records, seen, folder).items()}


def test_stated_groups_are_kept(tmp_path):
    found = grouped(tmp_path, a="", b="stated", c="")
    assert found == {"a": "patient of a", "c": "patient of a"}


def test_one_id_for_all_is_told(tmp_path, caplog):
    grouped(tmp_path, a="", b="", c="")
    assert "all 3 DICOM files carry the same patient id" in caplog.text
    assert "ANON" not in caplog.text


@pytest.mark.parametrize("form", [["--json"], [], ["--csv"]])
def test_predict_answers_a_scan_and_names_nobody(form, tested_project, tmp_path, caplog, capsys):
    file, broken = tmp_path / "scan", tmp_path / "broken"
    data = scan(5, dcm.SECRETS[1])
    file.write_bytes(data)
    broken.write_bytes(data[:-3000])
    caplog.set_level(logging.DEBUG)
    cli.main(["predict", str(file), str(broken), "--root", str(tested_project.root), *form])
    said = "".join(capsys.readouterr()) + caplog.text
    assert "red_tile" in said
    assert "damaged" in said
    assert not any(secret in said for secret in dcm.SECRETS)


def test_the_app_shows_nothing_of_a_header():
    from apps.session import thumb

    shown = thumb(open_image(scan(5, dcm.SECRETS[1])).rgb)
    assert Image.open(io.BytesIO(shown)).getexif() == {}
    assert not any(secret.encode() in shown for secret in dcm.SECRETS)

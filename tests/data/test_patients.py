"""The files of one DICOM patient are one group, and nothing says whose."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.config.prepare import PrepareParams
from pipelines.data.decoding import by_patient, examine
from pipelines.data.manifest import Record, read_manifest
from pipelines.data.pixel_range import Reading
from pipelines.paths import Paths
from pipelines.stages import prepare
from tests import dicom_files as dcm
from tests.stages.test_prepare import CARD


def scan(seed: int, patient: str) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 4096, (8, 8)).astype(np.float32)
    pixels = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC))
    whole = pixels.clip(0, 4095).astype(np.uint16)
    return dcm.dicom(whole, WindowCenter=2048, WindowWidth=4096, PatientID=patient)


@pytest.fixture
def project(tmp_path: Path) -> Paths:
    """Three classes of six patients with two scans each, under a name that says otherwise."""
    paths = Paths(tmp_path)
    files = paths.task("tiles")
    files.card.parent.mkdir(parents=True)
    card = CARD.replace("group_pattern: '(?P<group>t\\d+)_'\n", "")
    assert "group_pattern" not in card
    files.card.write_text(card, encoding="utf-8")
    for at, label in enumerate(("oak", "elm", "ash")):
        for patient in range(6):
            for n in range(2):
                file = files.raw_dir / label / f"{n}{patient}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                seed = 100 * at + 10 * patient + n
                file.write_bytes(scan(seed, f"{dcm.SECRETS[1]}-{at}{patient}"))
    return paths


def prepared(paths: Paths) -> bytes:
    params = PrepareParams.model_validate(
        {
            **{"classes": None, "val_fraction": 0.2, "test_fraction": 0.2, "min_side_px": 16},
            **{"near_duplicate_bits": 4, "max_quarantine_fraction": 0.1},
        }
    )
    prepare.run("tiles", "reference", params, 7, paths)
    folder = paths.task("tiles").prepared_dir
    return b"".join(file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file())


def test_prepare_keeps_patients_together_and_names_nobody(project, caplog):
    caplog.set_level(logging.DEBUG)
    first = prepared(project)
    entries = read_manifest(project.task("tiles").manifest)
    groups = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    assert len(entries) == 36
    assert len(groups) == 18
    for name, members in groups.items():
        assert name == f"patient of {members[0].path}"
        assert len({(member.label, member.path[-5]) for member in members}) == 1
        assert len({member.split for member in members}) == 1
    assert prepared(project) == first
    for secret in dcm.SECRETS:
        assert secret.encode() not in first
        assert secret not in caplog.text


def test_stated_groups_are_kept(tmp_path):
    records = {}
    for name, group in (("a.dcm", "a.dcm"), ("b.dcm", "stated"), ("c.dcm", "c.dcm")):
        (tmp_path / name).write_bytes(scan(1, "same"))
        records[name] = Record(name, "oak", group)
    seen = [examine(tmp_path, name, 16, Reading()) for name in records]
    changed = by_patient(records, seen, tmp_path)
    assert {path: record.group for path, record in changed.items()} == {
        "a.dcm": "patient of a.dcm",
        "c.dcm": "patient of a.dcm",
    }


def test_one_id_for_all_is_told(tmp_path, caplog):
    records = {}
    for n in range(3):
        (tmp_path / f"{n}").write_bytes(scan(n, "ANON"))
        records[f"{n}"] = Record(f"{n}", "oak", f"{n}")
    by_patient(records, [examine(tmp_path, name, 16, Reading()) for name in records], tmp_path)
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
    from pipelines.data.images import open_image

    shown = thumb(open_image(scan(5, dcm.SECRETS[1])).rgb)
    assert Image.open(io.BytesIO(shown)).getexif() == {}
    assert not any(secret.encode() in shown for secret in dcm.SECRETS)

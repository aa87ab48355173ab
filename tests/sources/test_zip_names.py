from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inflate64 import Deflater

from pipelines.errors import SourceError
from pipelines.sources.archive import extract, guess
from pipelines.sources.intake import Intake
from tests.file_tree import file_tree

UTF8 = 0x800


def raw_zip(path: Path, members: list[tuple[bytes, bytes]], **options: object) -> Path:
    """A zip whose names are given as bytes; options: flags, extra, deflate64, crc, size."""
    body, listed = b"", b""
    for name, data in members:
        packed, kind = data, 0
        if options.get("deflate64"):
            deflater = Deflater()
            packed, kind = deflater.deflate(data) + deflater.flush(), 9
        flags = options.get("flags", 0)
        crc = options.get("crc", zlib.crc32(data))
        size = options.get("size", len(data))
        extra = options["extra"](name) if "extra" in options else b""  # type: ignore[operator]
        lengths = (len(name), len(extra))
        facts = struct.pack("<HHHHHIII", 20, flags, kind, 0, 33, crc, len(packed), size)
        place = struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        listed += b"PK\x01\x02\x14\0" + facts + struct.pack("<HH", *lengths) + place + name + extra
        body += b"PK\x03\x04" + facts + struct.pack("<HH", *lengths) + name + extra + packed
    n = len(members)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, n, n, len(listed), len(body), 0)
    path.write_bytes(body + listed + end)
    return path


def _extract(path: Path, encoding: str | None = None) -> dict[str, bytes]:
    raw_dir = path.parent / "raw"
    raw_dir.mkdir()
    extract(path, Intake(raw_dir, "fish", max_bytes=100_000_000), "", encoding=encoding)
    return file_tree(raw_dir)


SETS = {
    "gbk": [
        ["健康", "早疫病", "锈病"],
        ["裂纹", "气孔"],
        ["猫", "狗"],
        ["葡萄", "柑橘"],
        ["螺丝", "螺母"],
    ],
    "big5": [["健康", "鏽病"], ["葡萄", "柑橘"], ["腐爛", "新鮮"]],
    "cp932": [["健康", "病気"], ["ひび割れ", "正常"], ["トマト", "ソバ"], ["新しいフォルダー"]],
    "cp949": [["건강", "병"], ["고양이", "강아지"], ["불량", "정상"]],
    "cp866": [["здоровый", "болезнь"], ["Кошки", "Собаки"], ["БРАК", "ГОДНЫЕ"]],
    "cp850": [
        ["Mehltau", "Welke Blätter"],
        ["Größenfehler", "GRÖßE"],
        ["maçã", "pêssego"],
        ["Ärger"],
    ],
    "cp437": [["naïve", "café"], ["Ångström"]],
    "cp1252": [["Blätter", "Früchte"], ["año"]],
    "cp1251": [["здоровый", "болезнь"]],
    "cp852": [["zdravý", "żółty liść"], ["řepa", "háďátko"]],
}


@pytest.mark.parametrize(
    ("page", "labels"), [(page, labels) for page, sets in SETS.items() for labels in sets]
)
def test_guess_gives_the_right_names(page: str, labels: list[str]) -> None:
    raw = [f"{label}/img{index}.jpg".encode(page) for label in labels for index in range(6)]
    found = guess(raw)
    assert [name.decode(found) for name in raw] == [name.decode(page) for name in raw]


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_guess_takes_any_bytes(raw: list[bytes]) -> None:
    assert guess(raw)


@pytest.mark.parametrize("page", ["gbk", "cp932", "cp866", "cp850"])
def test_extract_zip_names_are_guessed_and_told(
    tmp_path: Path, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    labels = SETS[page][-1]
    members = [(f"{label}/1.jpg".encode(page), label.encode()) for label in labels]
    with caplog.at_level("INFO", "pipelines"):
        found = _extract(raw_zip(tmp_path / "a.zip", members))
    assert found == {f"{label}/1.jpg": label.encode() for label in labels}
    told = f"fish: names read as {page}; set source.encoding to another code page if they are wrong"
    assert told in caplog.messages


def test_extract_zip_name_with_a_backslash_inside_a_character_is_one_folder(tmp_path: Path) -> None:
    # The second byte of "ソ" in Shift-JIS is that of a backslash.
    path = raw_zip(tmp_path / "a.zip", [("ソバ/ソース.jpg".encode("cp932"), b"1")])
    assert b"\\" in path.read_bytes()
    assert list(_extract(path, "cp932")) == ["ソバ/ソース.jpg"]


def test_extract_zip_setting_wins_and_is_checked(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "a.zip", [("здоровый/1.jpg".encode("cp866"), b"1")])
    with pytest.raises(SourceError, match=r"cannot be read as 'cp00'.*source.encoding"):
        _extract(path, "cp00")
    (tmp_path / "raw").rmdir()
    with pytest.raises(SourceError, match="cannot be read as 'ascii'"):
        _extract(path, "ascii")
    (tmp_path / "raw").rmdir()
    assert list(_extract(path, "cp866")) == ["здоровый/1.jpg"]


def test_extract_zip_unflagged_utf8_of_macos_is_read_and_not_guessed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    members = [
        ("Bla\u0308tter/1.jpg".encode(), b"1"),
        ("__MACOSX/Bla\u0308tter/._1.jpg".encode(), b"2"),
    ]
    with caplog.at_level("INFO", "pipelines"):
        found = _extract(raw_zip(tmp_path / "a.zip", members))
    assert found == {"Bl\u00e4tter/1.jpg": b"1"}
    assert not caplog.messages


@pytest.mark.parametrize(("is_of_name", "expected"), [(True, "größe"), (False, "gr_e")])
def test_extract_zip_unicode_path_field_is_believed_if_it_is_of_this_name(
    tmp_path: Path, is_of_name: bool, expected: str
) -> None:
    def extra(name: bytes) -> bytes:
        crc = zlib.crc32(name) if is_of_name else 1
        field = struct.pack("<BI", 1, crc) + "größe/1.jpg".encode()
        return (
            struct.pack("<HH", 0x9999, 2) + b"??" + struct.pack("<HH", 0x7075, len(field)) + field
        )

    # "gr_e" has nothing to decode; with \xff the name itself would be garbled.
    name = b"gr\x94\xe1e/1.jpg" if is_of_name else b"gr_e/1.jpg"
    found = _extract(raw_zip(tmp_path / "a.zip", [(name, b"1")], extra=extra), "cp1251")
    assert list(found) == [f"{expected}/1.jpg"]


def test_extract_deflate64(tmp_path: Path) -> None:
    members = [(b"cats/%d.jpg" % index, os.urandom(9000) + bytes(300_000)) for index in range(3)]
    path = raw_zip(tmp_path / "a.zip", members, deflate64=True)
    assert zipfile.ZipFile(path).infolist()[0].compress_type == 9
    assert _extract(path) == {name.decode(): data for name, data in members}


@pytest.mark.parametrize("lie", [{"crc": 7}, {"size": 299_999}, {"size": 300_001}])
def test_extract_deflate64_that_lies_is_damaged(tmp_path: Path, lie: dict[str, int]) -> None:
    path = raw_zip(tmp_path / "a.zip", [(b"a/1.jpg", bytes(300_000))], deflate64=True, **lie)
    with pytest.raises(SourceError, match=r"'a/1.jpg' in the zip is damaged"):
        _extract(path)


def test_extract_deflate64_cut_or_garbled_is_damaged(tmp_path: Path) -> None:
    path = raw_zip(tmp_path / "a.zip", [(b"a/1.jpg", os.urandom(9000))], deflate64=True)
    data = bytearray(path.read_bytes())
    data[40:60] = b"\xff" * 20
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        _extract(path)


def test_extract_deflate64_bomb_is_stopped_before_anything_is_unpacked(tmp_path: Path) -> None:
    # 120 MB in 5 kB.
    path = raw_zip(tmp_path / "a.zip", [(b"a/1.jpg", bytes(120_000_000))], deflate64=True)
    with pytest.raises(SourceError, match=r"more than 100,000,000 bytes"):
        _extract(path)
    # The same, with a size that looks harmless: stopped two megabytes later.
    (tmp_path / "raw").rmdir()
    path = raw_zip(
        tmp_path / "b.zip", [(b"a/1.jpg", bytes(120_000_000))], deflate64=True, size=1000
    )
    with pytest.raises(SourceError, match="larger than it says"):
        _extract(path)
    assert (tmp_path / "raw/a/1.jpg").stat().st_size == 0


@pytest.mark.parametrize(
    ("name", "labels", "n"),
    [
        ("gbk", {"健康", "锈病"}, 12),
        ("cp850", {"Mehltau", "Welke Blätter"}, 12),
        ("mac", {"plants"}, 12),
        ("deflate64", {"healthy", "rust"}, 12),
    ],
)
def test_extract_faulty_zips_have_right_names(
    faults_dir: Path, tmp_path: Path, name: str, labels: set[str], n: int
) -> None:
    raw_dir = tmp_path / "raw"
    raw_dir.mkdir()
    extract(faults_dir / f"zips/{name}.zip", Intake(raw_dir, "fish", max_bytes=10_000_000), "")
    found = file_tree(raw_dir)
    assert {path.partition("/")[0] for path in found} == labels
    assert len(found) == n

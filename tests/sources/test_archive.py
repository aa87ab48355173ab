from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inflate64 import Deflater

from pipelines.card import ArchiveSource
from pipelines.errors import SourceError
from pipelines.sources import archive as archives
from pipelines.sources.archive import extract, fetch_archive, guess
from pipelines.sources.intake import Intake
from tests.file_tree import file_tree

Member = tuple[str | tarfile.TarInfo | zipfile.ZipInfo, bytes]


def _zip(path: Path, *members: Member, mode: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", mode) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _tar(path: Path, *members: Member, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _pack(kind: str, path: Path, *members: Member) -> Path:
    return _zip(path, *members) if kind == "zip" else _tar(path, *members, mode=f"w:{kind[4:]}")


@pytest.fixture
def take(tmp_path: Path, intake: Callable[..., Intake]) -> Callable[..., dict[str, bytes]]:
    """Extracts an archive into an empty folder: what is there then."""

    def run(path: Path, subfolder: str = "", encoding: str | None = None, **bounds: int):
        made = intake(**bounds)
        assert file_tree(made.folder) == {}
        extract(path, made, subfolder, encoding)
        found = file_tree(made.folder)
        made.folder.rename(tmp_path / f"taken{len(list(tmp_path.iterdir()))}")
        return found

    return run


both = pytest.mark.parametrize("pack", [_zip, _tar])
every = pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])


@every
def test_extract_sound_archive_whatever_its_suffix(tmp_path, intake, kind):
    sound = {"cats/a.jpg": b"A" * 3000, "cats/sub/größe\n.png": b"B", "dogs/c.JPG": b""}
    path = _pack(kind, tmp_path / "set.bin", *sound.items(), ("x.txt", b"x"))
    made = intake()
    extract(path, made, "")
    assert file_tree(tmp_path / "raw") == sound
    assert (made.n_files, made.n_bytes, made.skipped["other"]) == (3, 3001, 1)


def test_xz_file_of_several_streams_with_zeros_between_is_one(take, tmp_path):
    import lzma

    data = _tar(tmp_path / "a.tar", ("cats/a.jpg", os.urandom(20_000))).read_bytes()
    parts = [lzma.compress(part) for part in (data[:9_000], data[9_000:])]
    (tmp_path / "a.tar.xz").write_bytes(bytes(4).join(parts) + bytes(8))
    assert list(take(tmp_path / "a.tar.xz")) == ["cats/a.jpg"]


def test_xz_file_that_asks_for_gigabytes_is_refused(take, tmp_path):
    path = _tar(tmp_path / "set.tar.xz", ("cats/a.jpg", b"x"), mode="w:xz")
    data = bytearray(path.read_bytes())
    # The first block's header, and in it the size of LZMA2's dictionary: 40 stands for 4 GB
    # (The .xz File Format 1.2.1, sections 3.1 and 5.3.1).
    data[16] = 40
    data[20:24] = struct.pack("<I", zlib.crc32(data[12:20]))
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"fish: .*Memory usage limit exceeded"):
        take(path)
    assert file_tree(tmp_path / "raw") == {}


@both
def test_extract_subfolder_selects_and_strips(take, tmp_path, pack):
    path = pack(
        tmp_path / "set",
        ("./data/train/cats/a.jpg", b"1"),
        ("data/train/records.csv", b"path,label\n"),
        ("data/trainer/cats/b.jpg", b"2"),
        ("data/test/cats/c.jpg", b"3"),
    )
    assert sorted(take(path, "data/train/")) == ["cats/a.jpg", "records.csv"]
    with pytest.raises(SourceError, match=r"no file below 'train'.*'data'"):
        take(path, "train")


_ELSEWHERE = ("../evil.jpg", "cats/../../evil.jpg", "/evil.jpg", "C:\\evil.jpg", "..\\evil.jpg")


@both
@pytest.mark.parametrize("name", [*_ELSEWHERE, "cats/../x.jpg"])
def test_extract_name_that_leads_elsewhere_is_refused(take, tmp_path, pack, name):
    path = pack(tmp_path / "set", (name, b"evil"))
    with pytest.raises(SourceError, match="the file name"):
        take(path)
    assert list(file_tree(tmp_path)) == ["set"]


@both
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("second", ["cats/a.jpg", "./cats//a.jpg", "cats\\a.jpg"])
def test_extract_doubled_name_is_refused(take, tmp_path, pack, second):
    path = pack(tmp_path / "set", ("cats/a.jpg", b"1"), (second, b"2"))
    with pytest.raises(SourceError, match="two members"):
        take(path)


def _special(kind: bytes | int, name: str = "a.jpg", link: str = "") -> Member:
    if isinstance(kind, int):
        info = zipfile.ZipInfo(name)
        info.external_attr = kind << 16
        return info, b"/etc/passwd"
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


@pytest.mark.parametrize(
    ("member", "match"),
    [
        (_special(tarfile.SYMTYPE, link="/etc/passwd"), "a link"),
        (_special(tarfile.LNKTYPE, link="/etc/passwd"), "a link"),
        (_special(tarfile.SYMTYPE, name="readme", link="cats"), "a link"),
        (_special(tarfile.CHRTYPE), "a device"),
        (_special(tarfile.BLKTYPE), "a device"),
        (_special(tarfile.FIFOTYPE), "a device"),
        (_special(stat.S_IFLNK | 0o777), "a link"),
        (_special(stat.S_IFCHR | 0o600), "a device"),
        (_special(stat.S_IFIFO | 0o600), "a device"),
    ],
)
def test_extract_special_member_is_refused(take, tmp_path, member, match):
    # A zip is looked at as a whole before anything is taken, a tar member by member.
    is_zip = isinstance(member[0], zipfile.ZipInfo)
    sound = ("cats/a.jpg", b"1")
    path = tmp_path / "set"
    _ = _zip(path, sound, member) if is_zip else _tar(path, member, sound)
    with pytest.raises(SourceError, match=match):
        take(path)
    assert file_tree(tmp_path / "raw") == {}


@pytest.mark.parametrize(
    ("headers", "match"),
    [
        # A gigabyte that takes no room in the archive: GNU tar's sparse header, made by hand.
        ({"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 30)}, "sparse"),
        ({"comment": "x" * (6 << 20)}, "header that is too long"),
    ],
)
def test_extract_tar_header_that_costs_gigabytes_is_refused(take, tmp_path, headers, match):
    info = tarfile.TarInfo("cats/a.jpg")
    info.pax_headers = headers
    with tarfile.open(tmp_path / "set.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(SourceError, match=match):
        take(tmp_path / "set.tar")


def test_extract_tar_headers_nested_without_end_are_stopped(take, tmp_path):
    # Each long-name header announces another one: tarfile calls itself for each.
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1
    block = info.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")
    (tmp_path / "set.tar").write_bytes(block * 3000)
    with pytest.raises(SourceError, match="damaged or incomplete"):
        take(tmp_path / "set.tar")


@pytest.mark.parametrize(
    ("offset", "value", "match"),
    [
        (8, 1, "encrypted"),
        (10, 14, "neither stored nor deflated"),
        # A member without a name; zipfile's own words for it are an IndexError.
        (28, 0, "damaged"),
    ],
)
def test_extract_zip_with_odd_entry_is_refused(take, tmp_path, offset, value, match):
    data = bytearray(_zip(tmp_path / "set.zip", ("a.jpg", b"1")).read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + offset, value)
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(SourceError, match=match):
        take(tmp_path / "set.zip")


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_extract_bomb_is_stopped(take, tmp_path, kind, monkeypatch):
    members = [("a.jpg", bytes(3_000_000)), ("b.txt", bytes(3_000_000))]
    path = _pack(kind, tmp_path / "set", *members)
    # Below the size from which the ratio counts it is left alone.
    assert list(take(path)) == ["a.jpg"]
    monkeypatch.setattr(archives, "_RATIO_FROM_BYTES", 1_000_000)
    with pytest.raises(SourceError, match="times its size"):
        take(path)
    assert list(file_tree(tmp_path / "raw")) in ([], ["a.jpg"])


@both
def test_extract_bounds_hold(take, tmp_path, pack):
    path = pack(tmp_path / "set", ("a.jpg", os.urandom(600)), ("b.txt", b"1"))
    assert list(take(path, max_bytes=600, max_files=2)) == ["a.jpg"]
    with pytest.raises(SourceError, match="more than 599 bytes"):
        take(path, max_bytes=599)
    # Members count, taken or not.
    with pytest.raises(SourceError, match="more than 1 files"):
        extract(path, Intake(tmp_path / "raw", "fish", max_bytes=600, max_files=1), "")


@every
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_extract_cut_archive_is_never_a_smaller_set(take, tmp_path, kind, share):
    members = [(f"cats/{index}.jpg", os.urandom(700)) for index in range(40)]
    path = _pack(kind, tmp_path / "set", *members)
    data = path.read_bytes()
    # A plain tar ends in 10,240 bytes of zeros, whose loss does no harm.
    length = len(data) if kind != "tar" else 40 * 1536
    path.write_bytes(data[: int(length * share)])
    with pytest.raises(SourceError, match=r"damaged|not an archive|incomplete"):
        take(path)


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("pack", "spoil", "match"),
    [
        # Between two members, where nothing else is amiss; and in the second one's checksum.
        (_tar, lambda data: data[:1024], "damaged or incomplete .empty header"),
        (_tar, lambda data: _flipped(data, 1024 + 148), "damaged or incomplete"),
        (_zip, lambda data: _flipped(data, 60), "'cats/a.jpg' in the zip is damaged"),
    ],
)
def test_extract_spoilt_archive_is_an_error(take, tmp_path, pack, spoil, match):
    options = {"mode": zipfile.ZIP_STORED} if pack is _zip else {}
    path = pack(tmp_path / "set", ("cats/a.jpg", b"1" * 512), ("cats/b.jpg", b"2"), **options)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SourceError, match=match):
        take(path)


def test_extract_archive_inside_stays_closed(take, tmp_path):
    inner = _zip(tmp_path / "inner.zip", ("cats/a.jpg", b"1")).read_bytes()
    path = _zip(tmp_path / "set.zip", ("cats/inner.zip", inner), ("cats/b.jpg", b"2"))
    assert list(take(path)) == ["cats/b.jpg"]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not an archive"),
        (b"hello", "not an archive"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"Rar!\x1a\x07\x01\x00", "rar and 7z"),
        (b"7z\xbc\xaf\x27\x1c", "rar and 7z"),
        (b"PK\x03\x04 and no more", "zip is damaged"),
        (b"\x1f\x8b and no more", "tar is damaged"),
        (b"\xfd7zXZ\x00 and no more", "tar is damaged"),
        (b"BZh and no more", "tar is damaged"),
    ],
)
def test_extract_other_bytes_say_what_they_are(take, tmp_path, data, match):
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(SourceError, match=match):
        take(tmp_path / "set.zip")


# -- fetch ----------------------------------------------------------------------------------------
@pytest.fixture
def fetch(tmp_path: Path, intake: Callable[..., Intake]) -> Callable[..., dict[str, object]]:
    def run(location: str, **options: object) -> dict[str, object]:
        source = ArchiveSource.model_validate({"kind": "archive", "location": location, **options})
        return fetch_archive(source, intake(), tmp_path, tmp_path / "downloads")

    return run


@pytest.mark.parametrize("is_relative", [True, False])
def test_fetch_archive_local_records_name_and_hash(fetch, tmp_path, is_relative):
    path = _zip(tmp_path / "set.zip", ("d/cats/a.jpg", b"1"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = fetch("set.zip" if is_relative else str(path), sha256=sha256, subfolder="d")
    assert facts == {"archive": "set.zip", "sha256": sha256, "subfolder": "d"}


def test_fetch_archive_from_an_address_keeps_no_secret(fetch, site, tmp_path):
    data = _zip(tmp_path / "set.zip", ("cats/a.jpg", b"1")).read_bytes()
    site.files["/set.zip?key=secret"] = data
    facts = fetch(f"{site.url}/set.zip?key=secret")
    assert facts == {"archive": f"{site.url}/set.zip", "sha256": hashlib.sha256(data).hexdigest()}
    assert file_tree(tmp_path / "raw") == {"cats/a.jpg": b"1"}


@pytest.mark.parametrize(
    ("location", "options", "match"),
    [
        ("set.zip", {"sha256": "0" * 64}, "expected sha256 0000"),
        ("absent.zip", {}, "cannot be read"),
        (".", {}, "cannot be read"),
        ("file:///etc/passwd", {}, "http:// or https://"),
        ("ftp://example.org/set.zip", {}, "http:// or https://"),
        ("set.zip", {"subfolder": "../x"}, "climbs out"),
    ],
)
def test_fetch_archive_refusals(fetch, tmp_path, location, options, match):
    _zip(tmp_path / "set.zip", ("cats/a.jpg", b"1"))
    with pytest.raises(SourceError, match=match):
        fetch(location, **options)
    assert file_tree(tmp_path / "raw") == {}


# -- names of a zip ------------------------------------------------------------------------------
def _raw_zip(path: Path, *members: tuple[bytes, bytes], **options: object) -> Path:
    """A zip whose names are given as bytes; options: extra, deflate64, crc, size."""
    body, listed = b"", b""
    for name, data in members:
        packed, kind = data, 0
        if options.get("deflate64"):
            deflater = Deflater()
            packed, kind = deflater.deflate(data) + deflater.flush(), 9
        crc = options.get("crc", zlib.crc32(data))
        size = options.get("size", len(data))
        extra = options.get("extra", b"")
        facts = struct.pack("<HHHHHIII", 20, 0, kind, 0, 33, crc, len(packed), size)
        facts += struct.pack("<HH", len(name), len(extra))
        place = struct.pack("<HHHII", 0, 0, 0, 0, len(body))
        listed += b"PK\x01\x02\x14\0" + facts + place + name + extra
        body += b"PK\x03\x04" + facts + name + extra + packed
    n = len(members)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, n, n, len(listed), len(body), 0)
    path.write_bytes(body + listed + end)
    return path


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
def test_guess_gives_the_right_names(page, labels):
    raw = [f"{label}/img{index}.jpg".encode(page) for label in labels for index in range(6)]
    found = guess(raw)
    assert [name.decode(found) for name in raw] == [name.decode(page) for name in raw]


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6))
def test_guess_takes_any_bytes(raw):
    assert guess(raw)


@pytest.mark.parametrize("page", ["gbk", "cp932", "cp866", "cp850"])
def test_extract_zip_names_are_guessed_and_told(take, tmp_path, page, caplog):
    members = {f"{label}/1.jpg": label.encode() for label in SETS[page][-1]}
    raw = [(name.encode(page), data) for name, data in members.items()]
    with caplog.at_level("INFO", "pipelines"):
        assert take(_raw_zip(tmp_path / "a.zip", *raw)) == members
    told = f"fish: names read as {page}; set source.encoding to another code page if they are wrong"
    assert told in caplog.messages


def test_extract_zip_name_with_a_backslash_inside_a_character_is_one_folder(take, tmp_path):
    # The second byte of "ソ" in Shift-JIS is that of a backslash.
    path = _raw_zip(tmp_path / "a.zip", ("ソバ/ソース.jpg".encode("cp932"), b"1"))
    assert b"\\" in path.read_bytes()
    assert list(take(path, encoding="cp932")) == ["ソバ/ソース.jpg"]


def test_extract_zip_setting_wins_and_is_checked(take, tmp_path):
    path = _raw_zip(tmp_path / "a.zip", ("здоровый/1.jpg".encode("cp866"), b"1"))
    for page, match in (("cp00", "'cp00'.*source.encoding"), ("ascii", "'ascii'")):
        with pytest.raises(SourceError, match=f"cannot be read as {match}"):
            take(path, encoding=page)
    assert list(take(path, encoding="cp866")) == ["здоровый/1.jpg"]


def test_extract_zip_unflagged_utf8_of_macos_is_read_and_not_guessed(take, tmp_path, caplog):
    members = ("Bla\u0308tter/1.jpg", "__MACOSX/Bla\u0308tter/._1.jpg")
    path = _raw_zip(tmp_path / "a.zip", *((name.encode(), b"1") for name in members))
    with caplog.at_level("INFO", "pipelines"):
        assert take(path) == {"Bl\u00e4tter/1.jpg": b"1"}
    assert not caplog.messages


@pytest.mark.parametrize(
    ("name", "crc", "expected"),
    [
        (b"gr\x94\xe1e/1.jpg", zlib.crc32(b"gr\x94\xe1e/1.jpg"), "größe/1.jpg"),
        # Of another name; "gr_e" has nothing to decode.
        (b"gr_e/1.jpg", 1, "gr_e/1.jpg"),
    ],
)
def test_extract_zip_unicode_path_field_is_believed_if_it_is_of_this_name(
    take, tmp_path, name, crc, expected
):
    field = struct.pack("<BI", 1, crc) + "größe/1.jpg".encode()
    other = struct.pack("<HH", 0x9999, 2) + b"??"
    extra = other + struct.pack("<HH", 0x7075, len(field)) + field
    path = _raw_zip(tmp_path / "a.zip", (name, b"1"), extra=extra)
    assert list(take(path, encoding="cp1251")) == [expected]


def test_extract_deflate64(take, tmp_path):
    members = [(b"cats/%d.jpg" % index, os.urandom(9000) + bytes(300_000)) for index in range(3)]
    path = _raw_zip(tmp_path / "a.zip", *members, deflate64=True)
    assert zipfile.ZipFile(path).infolist()[0].compress_type == 9
    assert take(path) == {name.decode(): data for name, data in members}


def _garbled(data: bytes) -> bytes:
    return data[:60] + b"\xff" * 20 + data[80:]


@pytest.mark.parametrize(
    ("lie", "spoil"),
    [
        ({"crc": 7}, bytes),
        ({"size": 299_999}, bytes),
        ({"size": 300_001}, bytes),
        ({}, _garbled),
    ],
)
def test_extract_deflate64_that_lies_or_is_garbled_is_damaged(take, tmp_path, lie, spoil):
    data = os.urandom(9000) + bytes(291_000)
    path = _raw_zip(tmp_path / "a.zip", (b"a/1.jpg", data), deflate64=True, **lie)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(SourceError, match=r"'a/1.jpg' in the zip is damaged"):
        take(path)


def test_extract_deflate64_bomb_is_stopped_before_anything_is_unpacked(take, tmp_path):
    # 120 MB in 5 kB.
    member = (b"a/1.jpg", bytes(120_000_000))
    path = _raw_zip(tmp_path / "a.zip", member, deflate64=True)
    with pytest.raises(SourceError, match=r"more than 100,000,000 bytes"):
        take(path, max_bytes=100_000_000)
    assert file_tree(tmp_path / "raw") == {}
    # The same, with a size that looks harmless: stopped two megabytes later.
    path = _raw_zip(tmp_path / "b.zip", member, deflate64=True, size=1000)
    with pytest.raises(SourceError, match="larger than it says"):
        take(path)
    assert file_tree(tmp_path / "raw") == {"a/1.jpg": b""}


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("gbk", {"健康", "锈病"}),
        ("cp850", {"Mehltau", "Welke Blätter"}),
        ("mac", {"plants"}),
        ("deflate64", {"healthy", "rust"}),
    ],
)
def test_extract_faulty_zips_have_right_names(take, faults_dir, name, labels):
    found = take(faults_dir / f"zips/{name}.zip")
    assert {path.partition("/")[0] for path in found} == labels
    assert len(found) == 12

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

from pipelines.card import ArchiveSource
from pipelines.errors import SourceError
from pipelines.sources.archive import extract, fetch_archive
from pipelines.sources.intake import Bounds, Intake
from tests.file_tree import file_tree

Member = tarfile.TarInfo | zipfile.ZipInfo


def _intake(folder: Path, max_bytes: int = 10_000_000) -> Intake:
    folder.mkdir(exist_ok=True)
    return Intake(folder, "fish", max_bytes=max_bytes)


def _taken(folder: Path) -> list[str]:
    return sorted(file_tree(folder))


def _zip(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def _tar(path: Path, *members: tuple[str | tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    return info


def _zip_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


SOUND = [
    ("cats/a.jpg", b"A" * 3000),
    ("cats/sub/größe\n.png", b"B"),
    ("dogs/c.JPG", b""),
    ("x.txt", b"x"),
]
SOUND_NAMES = ["cats/a.jpg", "cats/sub/größe\n.png", "dogs/c.JPG"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_extract_sound_archive_whatever_its_suffix(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "set.bin"
    if kind == "zip":
        _zip(path, *SOUND)
    else:
        _tar(path, *SOUND, mode="w:" + kind.partition(".")[2])
    intake = _intake(tmp_path / "raw")
    extract(path, intake, "")
    assert _taken(tmp_path / "raw") == SOUND_NAMES
    assert (tmp_path / "raw/cats/a.jpg").read_bytes() == b"A" * 3000
    assert (intake.n_files, intake.n_bytes, intake.skipped["other"]) == (3, 3001, 1)


def test_xz_file_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar.xz", ("cats/a.jpg", b"x"), mode="w:xz")
    data = bytearray(path.read_bytes())
    # The first block's header, and in it the size of LZMA2's dictionary: 40 stands for 4 GB
    # (The .xz File Format 1.2.1, sections 3.1 and 5.3.1).
    data[16] = 40
    data[20:24] = struct.pack("<I", zlib.crc32(data[12:20]))
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"fish: .*Memory usage limit exceeded"):
        extract(path, _intake(tmp_path / "raw"), "")
    assert not (tmp_path / "raw/cats/a.jpg").exists()


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_extract_subfolder_selects_and_strips(tmp_path: Path, pack: Callable[..., Path]) -> None:
    path = pack(
        tmp_path / "set",
        ("./data/train/cats/a.jpg", b"1"),
        ("data/train/records.csv", b"path,label\n"),
        ("data/trainer/cats/b.jpg", b"2"),
        ("data/test/cats/c.jpg", b"3"),
    )
    extract(path, _intake(tmp_path / "raw"), "data/train/")
    assert _taken(tmp_path / "raw") == ["cats/a.jpg", "records.csv"]


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_extract_absent_subfolder_says_what_there_is(
    tmp_path: Path, pack: Callable[..., Path]
) -> None:
    path = pack(tmp_path / "set", ("images/a.jpg", b"1"))
    with pytest.raises(SourceError, match=r"no file below 'train'.*'images'"):
        extract(path, _intake(tmp_path / "raw"), "train")


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "cats/../../evil.jpg",
        "/evil.jpg",
        "C:\\evil.jpg",
        "..\\evil.jpg",
        "cats/../x.jpg",
    ],
)
def test_extract_name_that_leads_elsewhere_is_refused(
    tmp_path: Path, pack: Callable[..., Path], name: str
) -> None:
    path = pack(tmp_path / "set", (name, b"evil"))
    with pytest.raises(SourceError, match="the file name"):
        extract(path, _intake(tmp_path / "raw"), "")
    assert _taken(tmp_path) == ["set"]


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("second", ["cats/a.jpg", "./cats//a.jpg", "cats\\a.jpg"])
def test_extract_doubled_name_is_refused(
    tmp_path: Path, pack: Callable[..., Path], second: str
) -> None:
    path = pack(tmp_path / "set", ("cats/a.jpg", b"1"), (second, b"2"))
    with pytest.raises(SourceError, match="two members"):
        extract(path, _intake(tmp_path / "raw"), "")


@pytest.mark.parametrize(
    ("info", "match"),
    [
        (_special("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (_special("a.jpg", tarfile.LNKTYPE, "/etc/passwd"), "a link"),
        (_special("a.jpg", tarfile.CHRTYPE), "a device"),
        (_special("a.jpg", tarfile.BLKTYPE), "a device"),
        (_special("a.jpg", tarfile.FIFOTYPE), "a device"),
        (_special("readme", tarfile.SYMTYPE, "cats"), "a link"),
    ],
)
def test_extract_tar_with_special_member_is_refused(
    tmp_path: Path, info: tarfile.TarInfo, match: str
) -> None:
    path = _tar(tmp_path / "set.tar", (info, b""), ("cats/a.jpg", b"1"))
    with pytest.raises(SourceError, match=match):
        extract(path, _intake(tmp_path / "raw"), "")
    assert _taken(tmp_path / "raw") == []


def test_extract_sparse_tar_is_refused(tmp_path: Path) -> None:
    # A gigabyte that takes no room in the archive: GNU tar's sparse header, made by hand.
    info = tarfile.TarInfo("cats/a.jpg")
    info.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 30)}
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(SourceError, match="sparse"):
        extract(path, _intake(tmp_path / "raw"), "")


@pytest.mark.parametrize(
    ("mode", "match"),
    [
        (stat.S_IFLNK | 0o777, "a link"),
        (stat.S_IFCHR | 0o600, "a device"),
        (stat.S_IFIFO | 0o600, "a device"),
    ],
)
def test_extract_zip_with_special_member_is_refused(tmp_path: Path, mode: int, match: str) -> None:
    path = _zip(tmp_path / "set.zip", ("b.jpg", b"1"), (_zip_mode("a.jpg", mode), b"/etc/passwd"))
    with pytest.raises(SourceError, match=match):
        extract(path, _intake(tmp_path / "raw"), "")
    assert _taken(tmp_path / "raw") == []


def _set_central_field(path: Path, offset: int, layout: str, value: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + offset
    struct.pack_into(layout, data, at, value)
    path.write_bytes(data)


def test_extract_encrypted_zip_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "set.zip", ("a.jpg", b"1"))
    _set_central_field(path, 8, "<H", 1)
    with pytest.raises(SourceError, match="encrypted"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_zip_with_a_member_without_a_name_raises_nothing_else(tmp_path: Path) -> None:
    path = _zip(tmp_path / "set.zip", ("a.jpg", b"1"))
    _set_central_field(path, 28, "<H", 0)
    with pytest.raises(SourceError):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_zip_with_unknown_compression_is_refused(tmp_path: Path) -> None:
    path = _zip(tmp_path / "set.zip", ("a.jpg", b"1"))
    _set_central_field(path, 10, "<H", 14)
    with pytest.raises(SourceError, match="neither stored nor deflated"):
        extract(path, _intake(tmp_path / "raw"), "")


@pytest.mark.parametrize("pack", ["zip", "tar.gz"])
def test_extract_bomb_is_stopped(tmp_path: Path, pack: str) -> None:
    path = tmp_path / "set"
    members = [("a.jpg", bytes(3_000_000)), ("b.txt", bytes(3_000_000))]
    if pack == "zip":
        _zip(path, *members)
    else:
        _tar(path, *members, mode="w:gz")
    with pytest.raises(SourceError, match="times its size"):
        extract(path, _intake(tmp_path / "raw"), "", Bounds(ratio_from_bytes=1_000_000))
    assert _taken(tmp_path / "raw") in ([], ["a.jpg"])
    # The same archive below the size from which the ratio counts is left alone.
    extract(path, _intake(tmp_path / "raw2"), "")
    assert _taken(tmp_path / "raw2") == ["a.jpg"]


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_extract_bounds_hold(tmp_path: Path, pack: Callable[..., Path]) -> None:
    path = pack(tmp_path / "set", ("a.jpg", os.urandom(600)), ("b.jpg", os.urandom(600)))
    extract(path, _intake(tmp_path / "raw", 1200), "")
    with pytest.raises(SourceError, match="more than 1,199 bytes"):
        extract(path, _intake(tmp_path / "raw2", 1199), "")
    with pytest.raises(SourceError, match="more than 1 files"):
        extract(path, _intake(tmp_path / "raw3"), "", Bounds(max_files=1))


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
def test_extract_cut_archive_is_never_a_smaller_set(
    tmp_path: Path, kind: str, share: float
) -> None:
    path = tmp_path / "set"
    members = [(f"cats/{index}.jpg", os.urandom(700)) for index in range(40)]
    if kind == "zip":
        _zip(path, *members)
    else:
        _tar(path, *members, mode="w:" + kind.partition(".")[2])
    data = path.read_bytes()
    # A plain tar ends in 10,240 bytes of zeros, whose loss does no harm.
    length = len(data) if kind != "tar" else 40 * 1536
    path.write_bytes(data[: int(length * share)])
    with pytest.raises(SourceError, match=r"damaged|not an archive|incomplete"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_tar_cut_between_members_is_an_error(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar", ("cats/a.jpg", b"1" * 512), ("cats/b.jpg", b"2" * 512))
    path.write_bytes(path.read_bytes()[:1024])
    with pytest.raises(SourceError, match="ends in the middle"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_tar_with_broken_header_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = _tar(tmp_path / "set.tar", ("cats/a.jpg", b"1" * 512), ("cats/b.jpg", b"2" * 512))
    data = bytearray(path.read_bytes())
    data[1024 + 148] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged or incomplete"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_zip_with_flipped_byte_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cats/a.jpg", b"1" * 100)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_tar_header_of_gigabytes_is_stopped(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cats/a.jpg")
    info.pax_headers = {"comment": "x" * (6 << 20)}
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    with pytest.raises(SourceError, match="header that is too long"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_tar_headers_nested_without_end_are_stopped(tmp_path: Path) -> None:
    # Each long-name header announces another one: tarfile calls itself for each.
    info = tarfile.TarInfo("././@LongLink")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1
    block = info.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")
    path = tmp_path / "set.tar"
    path.write_bytes(block * 3000)
    with pytest.raises(SourceError, match="damaged or incomplete"):
        extract(path, _intake(tmp_path / "raw"), "")


def test_extract_archive_inside_stays_closed(tmp_path: Path) -> None:
    inner = _zip(tmp_path / "inner.zip", ("cats/a.jpg", b"1")).read_bytes()
    path = _zip(tmp_path / "set.zip", ("cats/inner.zip", inner), ("cats/b.jpg", b"2"))
    intake = _intake(tmp_path / "raw")
    extract(path, intake, "")
    assert _taken(tmp_path / "raw") == ["cats/b.jpg"]
    assert intake.skipped["other"] == 1


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
def test_extract_other_bytes_say_what_they_are(tmp_path: Path, data: bytes, match: str) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(data)
    with pytest.raises(SourceError, match=match):
        extract(path, _intake(tmp_path / "raw"), "")


def _source(location: str, **options: object) -> ArchiveSource:
    return ArchiveSource.model_validate({"kind": "archive", "location": location, **options})


def test_fetch_archive_local_records_name_and_hash(tmp_path: Path) -> None:
    path = _zip(tmp_path / "set.zip", ("d/cats/a.jpg", b"1"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for location in ("set.zip", str(path)):
        facts = fetch_archive(
            _source(location, sha256=sha256, subfolder="d"),
            _intake(tmp_path / f"raw{len(location)}"),
            tmp_path,
            tmp_path / "downloads",
        )
        assert facts == {"archive": "set.zip", "sha256": sha256, "subfolder": "d"}


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
def test_fetch_archive_refusals(
    tmp_path: Path, location: str, options: dict[str, object], match: str
) -> None:
    _zip(tmp_path / "set.zip", ("cats/a.jpg", b"1"))
    with pytest.raises(SourceError, match=match):
        fetch_archive(
            _source(location, **options),
            _intake(tmp_path / "raw"),
            tmp_path,
            tmp_path / "downloads",
        )
    assert _taken(tmp_path / "raw") == []

"""Images from a zip or tar archive, taken out member by member.

An archive is treated as hostile: names that lead elsewhere, links, devices, encrypted or doubled
members refuse the whole archive; size, number and compression ratio are bounded; memory is bounded;
an archive inside is not opened. A truncated archive is an error, never a smaller data set.

A zip only sometimes says how its names are to be read. What is stated is believed: the flag for
UTF-8, Info-ZIP's field with the name in UTF-8, then the setting of the source. Bytes that are UTF-8
are (macOS sets no flag). Anything else is in the code page of the machine that packed it, which is
guessed for all names together, by how much the result looks like names: whole words of one script,
frequent characters, no signs between letters.

References:
    APPNOTE.TXT 6.3.10 (PKWARE, 2022): 4.4.4 for the flags of encryption and UTF-8, 4.4.5 for the
    compression, 4.4.15 for file modes, 4.6.9 (0x7075), appendix D. POSIX.1-2017, `pax`, for tar.
    GB 2312, Big5, JIS X 0208 and KS X 1001 for the rows that hold the frequent characters.
"""

from __future__ import annotations

import bz2
import copy
import gzip
import hashlib
import logging
import lzma
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, Self

from pipelines.atomic import file_sha256
from pipelines.card import ArchiveSource
from pipelines.errors import SourceError
from pipelines.locks import hold
from pipelines.progress import track
from pipelines.sources.download import (
    CHUNK_BYTES,
    check_address,
    download,
    is_address,
    public_name,
    read_chunks,
    source_faults,
)
from pipelines.sources.intake import Facts, Intake, safe_path
from pipelines.sources.stores import is_store, open_store, pull_file

_LOG = logging.getLogger(__name__)

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
_GZIP_MAGIC, _BZIP2_MAGIC, _XZ_MAGIC = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00"
#: A tar header's magic and where it stands.
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", slice(257, 262)

#: What no honest archive of images passes. JPEG and PNG stay near 1, plain BMP and TIFF scans below
#: 50; deflate's own limit is 1,032 and a bomb is near it. Few unpacked bytes do no harm.
_MAX_RATIO, _RATIO_FROM_BYTES = 200, 100_000_000
#: What the standard library raises on malformed archives. NotImplementedError (a compression that
#: it does not know) and RecursionError (tar headers nested in one another) are RuntimeErrors.
_FAULTS = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError),
    *(OSError, ValueError, LookupError, OverflowError, RuntimeError, MemoryError),
)


def fetch_archive(source: ArchiveSource, intake: Intake, root: Path, downloads_dir: Path) -> Facts:
    """Take the images out of an archive.

    Args:
        root: project root, for a relative path.
        downloads_dir: where a downloaded archive is kept.

    Returns:
        The archive's name and sha256.

    Raises:
        SourceError: if it cannot be fetched or read, is not what was promised, or is unsafe.
        StorageError: if the disk is full.
    """
    what, name = intake.what, public_name(source.location)
    about: Facts = {}
    with ExitStack() as stack:
        key = hashlib.sha256(source.location.encode()).hexdigest()[:16]
        if is_address(source.location):
            stack.enter_context(hold(downloads_dir / f"{key}.lock", f"fetch {what}"))
        if is_store(source.location):
            store = open_store(source.location, what, anonymous=source.anonymous)
            about = store.facts
            path = pull_file(store, downloads_dir / f"store-{key}", what, source.max_bytes)
        elif is_address(source.location):
            check_address(source.location, f"{what}: source.location")
            path = downloads_dir / key
            download(
                source.location,
                path,
                sha256=source.sha256,
                max_bytes=source.max_bytes,
                is_shown=True,
            )
        else:
            path = root / source.location
        next_step = "Mend `source.location` in params.yaml."
        with source_faults(f"{what}: the archive {name!r} cannot be read", next_step=next_step):
            sha256 = file_sha256(path)
        if source.sha256 not in {None, sha256}:
            raise SourceError(
                f"{what}: {name}: expected sha256 {source.sha256}, got {sha256}. Nothing was "
                f"taken from it."
            )
        extract(path, intake, source.subfolder, source.encoding)
    facts: Facts = {"archive": name, "sha256": sha256, **about}
    return facts | ({"subfolder": source.subfolder} if source.subfolder else {})


def extract(path: Path, intake: Intake, subfolder: str, encoding: str | None = None) -> None:
    """Hand the images of an archive to an intake.

    Args:
        path: a zip, tar, tar.gz, tar.bz2 or tar.xz, told by its content.
        subfolder: of the archive; only what is below it is taken, under names relative to it.
        encoding: code page of a zip's names where the zip does not say; None guesses.

    Raises:
        SourceError: if it is damaged, unsafe, or holds nothing below ``subfolder``.
    """
    names = _Names(intake, safe_path(subfolder, f"{intake.what}: source.subfolder").parts)
    packed = path.stat().st_size
    with path.open("rb") as stream:
        magic = stream.read(_TAR_MAGIC_AT.stop)
        stream.seek(0)
        if magic.startswith(_ZIP_MAGIC):
            _extract_zip(stream, packed, intake, names, encoding)
        elif (
            magic.startswith((_GZIP_MAGIC, _BZIP2_MAGIC, _XZ_MAGIC))
            or magic[_TAR_MAGIC_AT] == _TAR_MAGIC
        ):
            _extract_tar(stream, magic, packed, intake, names)
        else:
            raise SourceError(f"{intake.what}: {_not_an_archive(magic)}")
    names.check_found()


def _not_an_archive(magic: bytes) -> str:
    expected = "Expected a zip, tar, tar.gz, tar.bz2 or tar.xz"
    if magic.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return (
            f"what arrived is a web page, not an archive. {expected}; the address may ask for a "
            f"login: fetch it by hand and name it as a path."
        )
    if magic.startswith((b"Rar!", b"7z\xbc\xaf")):
        return f"rar and 7z archives are not opened. {expected}: unpack it and pack it again."
    return f"the file is not an archive. {expected}."


class _Names:
    """The names of an archive's members: safe, each once, and relative to the subfolder."""

    def __init__(self, intake: Intake, prefix: tuple[str, ...]) -> None:
        self._intake = intake
        self._prefix = prefix
        self._seen: set[str] = set()
        self._tops: set[str] = set()
        self._is_found = not prefix

    def place(self, name: str, *, is_dir: bool) -> PurePosixPath | None:
        """Where a member goes; None for a folder and for what is outside the subfolder."""
        path = safe_path(name, self._intake.what)
        self._tops.update(path.parts[:1])
        if is_dir:
            return None
        if str(path) in self._seen:
            raise SourceError(
                f"{self._intake.what}: two members are called {str(path)!r}. Expected each name "
                f"once; repack the archive."
            )
        self._seen.add(str(path))
        if len(self._seen) > self._intake.max_files:
            raise self._intake.too_many()
        depth = len(self._prefix)
        if path.parts[:depth] != self._prefix or len(path.parts) == depth:
            return None
        self._is_found = True
        return PurePosixPath(*path.parts[depth:])

    def check_found(self) -> None:
        """SourceError, if no file lay below the subfolder."""
        if not self._is_found:
            tops = ", ".join(repr(top) for top in sorted(self._tops)[:5]) or "nothing"
            raise SourceError(
                f"{self._intake.what}: the archive has no file below {'/'.join(self._prefix)!r}. "
                f"It holds {tops}; mend `source.subfolder` in params.yaml."
            )


def _check_ratio(what: str, unpacked: int, packed: int) -> None:
    if unpacked > _RATIO_FROM_BYTES and unpacked > _MAX_RATIO * packed:
        raise SourceError(
            f"{what}: the archive unpacks to more than {_MAX_RATIO} times its size, as no set of "
            f"images does. Nothing was taken from it."
        )


def _refused(what: str, name: str, kind: str) -> SourceError:
    return SourceError(
        f"{what}: {name!r} is {kind}. Expected plain files only; nothing was taken from the "
        f"archive."
    )


# -- tar ------------------------------------------------------------------------------------------
#: tarfile's own reading unit in stream mode.
_RECORD_BYTES = 20 * tarfile.BLOCKSIZE
#: Long names and pax records of one member; tarfile holds them in memory.
_MAX_HEADER_BYTES = 4 << 20
#: What unpacking an xz file may take: its setting -9 needs 65 MB, but a file may ask for 4 GB.
_MAX_XZ_BYTES = 128 << 20


def _extract_tar(
    stream: IO[bytes], magic: bytes, packed: int, intake: Intake, names: _Names
) -> None:
    read: Callable[[int], bytes] = stream.read
    if magic.startswith(_GZIP_MAGIC):
        read = gzip.GzipFile(fileobj=stream).read
    elif magic.startswith(_BZIP2_MAGIC):
        read = bz2.BZ2File(stream).read
    elif magic.startswith(_XZ_MAGIC):
        chunks = _unxz(stream)
        read = lambda _: next(chunks, b"")  # noqa: E731
    source = _TarBytes(read, intake.what, packed)
    fault = f"{intake.what}: the tar is damaged or incomplete"
    with source_faults(fault, _FAULTS):
        tar = tarfile.TarFile.open(fileobj=source, mode="r|", tarinfo=_Header)  # type: ignore[call-overload]
    what, total = f"{intake.what}: unpacking (MiB)", packed // CHUNK_BYTES
    members = _members(tar, source, fault)
    for member in track(members, what, total, lambda: stream.tell() // CHUNK_BYTES):
        _take_tar_member(tar, member, intake, names)
    # To the end, where gzip, bzip2 and xz say whether all is there.
    with source_faults(fault, _FAULTS):
        while source.read(CHUNK_BYTES):
            pass


class _Header(tarfile.TarInfo):
    """A member's header; tarfile itself takes a broken or missing one for the end of the tar."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as err:
            if buf == bytes(tarfile.BLOCKSIZE):
                raise
            raise tarfile.ReadError(str(err)) from err


def _unxz(stream: IO[bytes]) -> Iterator[bytes]:
    """The unpacked bytes of an xz file, in bounded memory; `lzma.LZMAFile` knows no bound."""
    packed = stream.read(_RECORD_BYTES)
    # Several xz streams in a row are one file, with zeros between them.
    while packed:
        unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)
        while not unpacker.eof:
            if data := unpacker.decompress(packed, _RECORD_BYTES):
                yield data
            packed = stream.read(_RECORD_BYTES) if unpacker.needs_input else b""
            if unpacker.needs_input and not packed:
                raise EOFError("it ends in the middle")
        packed = (unpacker.unused_data.lstrip(b"\0") or stream.read(_RECORD_BYTES)).lstrip(b"\0")


class _TarBytes:
    """The unpacked bytes of a tar, counted.

    tarfile reads long names and pax records into memory, however long they say they are.
    """

    def __init__(self, read: Callable[[int], bytes], what: str, packed: int) -> None:
        self._read = read
        self._what = what
        self._packed = packed
        self._n_read = 0
        #: Bytes that may be read before it is set again; None while a member's data are read.
        self.header_room: int | None = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """About so many bytes; none at the end."""
        data = self._read(size)
        self._n_read += len(data)
        _check_ratio(self._what, self._n_read, self._packed)
        if self.header_room is not None:
            self.header_room -= len(data)
            if self.header_room < 0:
                raise SourceError(f"{self._what}: the tar has a header that is too long.")
        return data


def _members(tar: tarfile.TarFile, source: _TarBytes, fault: str) -> Iterator[tarfile.TarInfo]:
    while True:
        source.header_room = _MAX_HEADER_BYTES
        with source_faults(fault, _FAULTS):
            member = tar.next()
        source.header_room = None
        if member is None:
            return
        # tarfile remembers each member that it saw; two million of them would fill the memory.
        tar.members = []  # type: ignore[attr-defined]
        yield member


def _take_tar_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, intake: Intake, names: _Names
) -> None:
    if member.issym() or member.islnk():
        raise _refused(intake.what, member.name, "a link")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise _refused(intake.what, member.name, "a device, pipe or sparse file")
    path = names.place(member.name, is_dir=member.isdir())
    data = tar.extractfile(member)
    if data is None:
        return
    chunks = read_chunks(
        data.read, f"{intake.what}: {member.name!r} in the tar is damaged", _FAULTS
    )
    if path is not None and intake.wants(path):
        intake.check_room(member.size)
        intake.add(path, chunks)
    else:
        # Read past it here, so that what follows counts as a header.
        for _ in chunks:
            pass


# -- zip ------------------------------------------------------------------------------------------
#: What Windows writes beyond 2 GB: like deflate, and not known to zipfile.
_DEFLATE64 = 9
#: zipfile unpacks other kinds by the chunk it has read, however much comes out: 1 MB of bzip2 may
#: become 20 GB in memory.
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, _DEFLATE64})
#: Packed bytes of Deflate64 unpacked at a time: a byte of it becomes 30 kB at most.
_PIECE_BYTES = 64


def _extract_zip(
    stream: IO[bytes], packed: int, intake: Intake, names: _Names, encoding: str | None
) -> None:
    what = intake.what
    with source_faults(f"{what}: the zip is damaged or incomplete", _FAULTS):
        archive = zipfile.ZipFile(stream)
    wanted = []
    unpacked = 0
    members = archive.infolist()
    spelt, guessed = _read_names(members, encoding, what)
    # Everything is looked at before anything is taken.
    for member, name in zip(members, spelt, strict=True):
        # Not by is_dir, which raises for a member without a name.
        path = names.place(name, is_dir=name.endswith("/"))
        _check_zip_member(member, name, what)
        if path is not None and intake.wants(path):
            wanted.append((path, member))
            unpacked += member.file_size
    if guessed:
        _LOG.info(
            "%s: names read as %s; set source.encoding to another code page if they are wrong",
            *(what, guessed),
        )
    intake.check_room(unpacked)
    _check_ratio(what, unpacked, packed)
    for path, member in track(wanted, f"{what}: unpacking", len(wanted)):
        fault = f"{what}: {path.as_posix()!r} in the zip is damaged"
        intake.add(path, _zip_chunks(archive, member, fault))


def _check_zip_member(member: zipfile.ZipInfo, name: str, what: str) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise _refused(what, name, "a link")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise _refused(what, name, "a device or pipe")
    if member.compress_type not in _COMPRESSIONS:
        used = {12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz"}.get(
            member.compress_type, f"type {member.compress_type}"
        )
        raise SourceError(
            f"{what}: {name!r} is neither stored nor deflated, but packed by {used}, which is not "
            f"unpacked here in bounded memory. Unpack the archive and name the folder, or pack it "
            f"again as a plain zip; nothing was taken from it."
        )
    # Bit 0 of the general purpose flag: APPNOTE 4.4.4.
    if member.flag_bits & 0x1:
        raise _refused(what, name, "encrypted")


def _zip_chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, fault: str) -> Iterator[bytes]:
    with source_faults(fault, _FAULTS):
        if member.compress_type == _DEFLATE64:
            yield from _inflate64(archive, member)
            return
        with archive.open(member) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk


def _inflate64(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The unpacked bytes of one member, in bounded memory, checked as zipfile checks its own."""
    from inflate64 import Inflater

    # Of a member that says it is stored, and has no checksum, zipfile gives the packed bytes.
    stored = copy.copy(member)
    stored.compress_type, stored.file_size = zipfile.ZIP_STORED, member.compress_size
    del stored.CRC
    unpacker, n_bytes, crc = Inflater(), 0, 0
    with archive.open(stored) as stream:
        while packed := stream.read(CHUNK_BYTES):
            for at in range(0, len(packed), _PIECE_BYTES):
                data = unpacker.inflate(packed[at : at + _PIECE_BYTES])
                n_bytes += len(data)
                crc = zlib.crc32(data, crc)
                if n_bytes > member.file_size:
                    raise zipfile.BadZipFile("it is larger than it says")
                yield data
    if (n_bytes, crc) != (member.file_size, member.CRC):
        raise zipfile.BadZipFile("its length or checksum is wrong")


# -- names of a zip ------------------------------------------------------------------------------
_IS_UTF8 = 0x800
_UNICODE_PATH = 0x7075
#: In the order of preference where two of them look alike.
_CODE_PAGES = (
    *("gbk", "cp932", "cp850", "cp866", "cp437", "cp1252", "cp852", "cp1251", "big5", "cp949"),
)
#: What names of photographs and of what they show are often made of; beyond the hundred or so most
#: frequent characters of each language: health, plants, animals, materials, faults.
_FREQUENT = {
    "gbk": (
        "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年"
        "过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心本"
        "前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最"
        "新建文件夹图片照健康病害虫叶早晚疫锈斑霉白粉灰枯萎红黄绿黑蓝猫狗鱼鸟马牛羊猪鸡兔花草树果菜瓜茄"
        "番苹梨桃米麦稻玉豆棉裂纹气孔焊缝划痕缺陷良品合格常异皮肤肺部炎症肿瘤左右口罩戴未训练测试验证集"
        "男女老手头眼脸车船飞门窗水火山石土金木食物类别他组号样一二四五六七八九零"
    ),
    "big5": (
        "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年"
        "過發後作裡用道行所然家種事成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心本"
        "前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性知全三又關點正業外將兩高間由問很最"
        "新增資料夾圖片照健康病害蟲葉早晚疫鏽斑霉黴白粉灰枯萎紅黃綠黑藍貓狗魚鳥馬牛羊豬雞兔花草樹果菜瓜茄"
        "番蘋梨桃米麥稻玉豆棉裂紋氣孔焊縫劃痕缺陷良品合格常異皮膚肺炎症腫瘤左右口罩戴未訓練測試驗證集"
        "男女老手頭眼臉車船飛門窗水火山石土金木食物類別組號二四五六七八九零"
    ),
    "cp932": (
        "日一人年大十二本中長出三時行見月分後前生五間上東四今金九入学高円子外八六下来気小七山話女北午"
        "百書先名川千水半男西電校語土木聞食車何南万毎白天母火右読左友休父雨新写真病健康葉枯斑点黒赤黄緑"
        "青灰猫犬魚鳥馬牛羊豚鶏花草樹果菜米麦稲豆傷割欠陥良品不正常異皮膚肺炎症口着用未訓練試験証"
    ),
    "cp949": (
        "이다는의가을를에고하한지은도로기사자과나인서그대리어보수정장일시여부스아해상전주원구신동세라제"
        "조우마비소관성경국중화건강병잎흑백황녹적청점무늬고양개새물말소돼닭꽃풀나무과일쌀밀콩불량합격"
        "균열피부폐염증왼오른쪽눈얼굴마크착용훈련학습검증시험사진폴더새양호결함"
    ),
    "latin": "äöüßéèêëàâçñáíóúãõåæøôîïûùýąćęłńśźżčěřšťůžďňőűÄÖÜÅÆØÉÁÍÓÚÑÇŁŚŻŽŠČŘ",
}


def _read_names(
    members: Sequence[zipfile.ZipInfo], encoding: str | None, what: str
) -> tuple[list[str], str | None]:
    """The name of each member, and the code page that was guessed for some of them, if any."""
    names = [_stated(member) for member in members]
    raw = [
        _bytes(member) if name is None else b"" for member, name in zip(members, names, strict=True)
    ]
    guessed = None
    if any(raw) and encoding is None and not _is_utf8(raw):
        encoding = guessed = guess(raw)
    try:
        return [
            data.decode(encoding or "utf-8") if name is None else name
            for name, data in zip(names, raw, strict=True)
        ], guessed
    except (LookupError, UnicodeDecodeError) as err:
        raise SourceError(
            f"{what}: the names in the zip cannot be read as {encoding!r} ({err}). Mend "
            f"`source.encoding`: a code page such as gbk, cp932, cp850 or cp866, or null to guess."
        ) from err


def _stated(member: zipfile.ZipInfo) -> str | None:
    if member.flag_bits & _IS_UTF8 or member.orig_filename.isascii():
        return member.orig_filename
    rest = member.extra
    while len(rest) >= 4:
        kind, size = struct.unpack_from("<HH", rest)
        field, rest = rest[4 : 4 + size], rest[4 + size :]
        # The field is of another name if a program that did not know it has renamed the member.
        is_of_name = field[1:5] == struct.pack("<I", zlib.crc32(_bytes(member)))
        if kind == _UNICODE_PATH and field[:1] == b"\x01" and is_of_name:
            return field[5:].decode("utf-8", "surrogateescape")
    return None


def _bytes(member: zipfile.ZipInfo) -> bytes:
    # zipfile reads what has no flag as cp437, where each byte is a character.
    return member.orig_filename.encode("cp437")


def _is_utf8(raw: Sequence[bytes]) -> bool:
    try:
        b"\n".join(raw).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def guess(raw: Sequence[bytes]) -> str:
    """The code page in which the names of one archive, not all ASCII, look most like names."""
    # Of each folder and file once, without numbers: a thousand like names are one witness.
    parts = {re.sub(rb"[0-9]+", b"", part) for name in raw for part in name.split(b"/")}
    parts = {part for part in parts if not part.isascii()} or set(raw)
    scores = {page: _score(parts, page) for page in _CODE_PAGES}
    # `max` keeps the first of several: ties go by the order of preference.
    return max(_CODE_PAGES, key=scores.__getitem__)


def _score(parts: set[bytes], page: str) -> float:
    """Mean worth of a byte that is not ASCII, higher where it looks more like a name."""
    total = n_bytes = 0.0
    for part in parts:
        try:
            text = part.decode(page)
        except UnicodeDecodeError:
            return -10.0
        n_bytes += sum(byte >= 0x80 for byte in part)
        # Words, and each sign between them.
        for word in re.findall(r"[^\W\d_]+|[^\x00-\x7f]", text):
            total += _worth(word, page)
    return total / max(1.0, n_bytes)


def _worth(word: str, page: str) -> float:
    foreign = [letter for letter in word if not letter.isascii()]
    if page in {"gbk", "big5", "cp932", "cp949"}:
        # Latin letters on both sides: a word of the West, misread.
        is_inside = word[0].isascii() and word[-1].isascii()
        return sum(2 * (-1 if is_inside else _worth_east(letter, page)) for letter in foreign)
    if not word.isalpha():
        return -2.0 * len(foreign)
    scripts = {unicodedata.name(letter, "?").split()[0] for letter in word}
    # ß has no capital that a code page knows.
    has_odd_case = not (word.islower() or word.replace("ß", "").isupper() or word[1:].islower())
    if len(scripts) > 1 or not scripts <= {"LATIN", "CYRILLIC"} or has_odd_case:
        return -1.0 * len(foreign)
    if scripts == {"CYRILLIC"}:
        # Letters of Russian and Ukrainian; the other half of the block is rare.
        sure = 1.5 if len(word) > 2 else 0.5
        return sum(sure if letter.lower() in _CYRILLIC else -1 for letter in foreign)
    if 3 * len(foreign) > 2 * len(word) > 2:
        return -0.5 * len(foreign)
    return sum(1.5 if letter in _FREQUENT["latin"] else 0 for letter in foreign)


_CYRILLIC = frozenset("абвгдеёжзийклмнопрстуфхцчшщъыьэюяіїєґ")


def _worth_east(letter: str, page: str) -> float:
    if letter in _FREQUENT[page]:
        return 1.5
    lead, *trail = letter.encode(page)
    low = trail[0] if trail else 0
    match page:
        case "gbk":
            return 0.6 if 0xB0 <= lead <= 0xD7 and low >= 0xA1 else -0.5 if low >= 0xA1 else -1
        case "big5":
            return 0.5 if 0xA4 <= lead <= 0xC6 else -0.5
        case "cp949":
            return 0.5 if 0xB0 <= lead <= 0xC8 and low >= 0xA1 else -0.5
        case _:
            is_kana = "\u3041" <= letter <= "\u30fe"
            return 1.5 if is_kana else 0.5 if 0x88 <= lead <= 0x97 else -0.5

"""The members of a zip archive.

References:
    APPNOTE.TXT 6.3.10 (PKWARE, 2022): 4.3.7 for the local header, 4.4.4 for the encryption flag,
    4.4.5 for the compression, 4.4.15 for file modes.
"""

from __future__ import annotations

import logging
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from pipelines.data.sources.intake import Intake, Readable, read_chunks, reason
from pipelines.data.sources.members import FAULTS, Bounds, Names, check_ratio, refused
from pipelines.data.sources.zip_names import read_names
from pipelines.errors import SourceError
from pipelines.progress import track

_LOG = logging.getLogger(__name__)

#: What Windows writes beyond 2 GB: like deflate, and not known to zipfile.
_DEFLATE64 = 9
#: zipfile unpacks other kinds by the chunk it has read, however much comes out: 1 MB of bzip2 may
#: become 20 GB in memory.
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, _DEFLATE64})
#: Packed bytes of Deflate64 unpacked at a time: a byte of it becomes 30 kB at most.
_PIECE_BYTES = 64
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def extract_zip(
    stream: IO[bytes],
    packed: int,
    intake: Intake,
    names: Names,
    bounds: Bounds,
    encoding: str | None = None,
) -> None:
    """Take the images out of a zip.

    Args:
        stream: the archive's bytes, at their start and seekable.
        packed: how many bytes there are.
        intake: takes the files.
        names: checks the members' names.
        bounds: of the ratio.
        encoding: code page of names that say nothing; None guesses, and says so.

    Raises:
        SourceError: if it is damaged, or a member is unsafe.
    """
    what = intake.what
    try:
        archive = zipfile.ZipFile(stream)
    except FAULTS as err:
        raise SourceError(f"{what}: the zip is damaged or incomplete ({reason(err)}).") from err
    with archive:
        wanted = []
        unpacked = 0
        members = archive.infolist()
        spelt, guessed = read_names(members, encoding, what)
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
        check_ratio(what, unpacked, packed, bounds)
        for path, member in track(wanted, f"{what}: unpacking", len(wanted)):
            intake.add(path, _zip_chunks(archive, stream, path.as_posix(), member, what))


def _check_zip_member(member: zipfile.ZipInfo, name: str, what: str) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise refused(what, name, "a link")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise refused(what, name, "a device or pipe")
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
        raise refused(what, name, "encrypted")


def _zip_chunks(
    archive: zipfile.ZipFile, whole: IO[bytes], name: str, member: zipfile.ZipInfo, what: str
) -> Iterator[bytes]:
    fault = f"{what}: {name!r} in the zip is damaged"
    try:
        if member.compress_type == _DEFLATE64:
            yield from read_chunks(_Deflate64(whole, member), fault, FAULTS)
            return
        stream = archive.open(member)
    except FAULTS as err:
        raise SourceError(f"{fault} ({reason(err)}).") from err
    with stream:
        yield from read_chunks(stream, fault, FAULTS)


class _Deflate64(Readable):
    """The unpacked bytes of one member, in bounded memory, checked as zipfile checks its own."""

    def __init__(self, whole: IO[bytes], member: zipfile.ZipInfo) -> None:
        from inflate64 import Inflater

        whole.seek(member.header_offset)
        magic, n_name, n_extra = _LOCAL_HEADER.unpack(whole.read(_LOCAL_HEADER.size))
        if magic != b"PK\x03\x04":
            raise zipfile.BadZipFile("no header where the list has one")
        whole.seek(n_name + n_extra, 1)
        self._whole = whole
        self._member = member
        self._unpacker = Inflater()
        self._n_packed = member.compress_size
        self._n_unpacked = 0
        self._crc = 0

    def read(self, size: int, /) -> bytes:
        """About so many bytes, at most 2 MB more; none at the end."""
        pieces, n_bytes = [], 0
        while n_bytes < size and self._n_packed and not self._unpacker.eof:
            packed = self._whole.read(min(_PIECE_BYTES, self._n_packed))
            if not packed:
                raise EOFError("it ends in the middle")
            self._n_packed -= len(packed)
            pieces.append(self._unpacker.inflate(packed))
            n_bytes += len(pieces[-1])
        data = b"".join(pieces)
        self._n_unpacked += n_bytes
        self._crc = zlib.crc32(data, self._crc)
        if self._n_unpacked > self._member.file_size:
            raise zipfile.BadZipFile("it is larger than it says")
        is_whole = (self._n_unpacked, self._crc) == (self._member.file_size, self._member.CRC)
        if not data and not is_whole:
            raise zipfile.BadZipFile("its length or checksum is wrong")
        return data

"""The members of a tar archive, plain or compressed, read in one pass.

References:
    POSIX.1-2017, pax: "ustar Interchange Format" (512-byte blocks, two zero blocks at the end).
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO

from pipelines.errors import SourceError
from pipelines.sources.intake import FAULTS, Bounds, Intake, Names, check_ratio, refused
from pipelines.sources.streams import CHUNK_BYTES, Readable, byte_bar, read_chunks, reason

_TAR_BLOCK_BYTES = 512
#: tarfile's own reading unit in stream mode.
_TAR_RECORD_BYTES = 20 * _TAR_BLOCK_BYTES
#: Long names and pax records of one member; tarfile holds them in memory.
_MAX_HEADER_BYTES = 4 << 20
#: What unpacking an xz file may take: its setting -9 needs 65 MB, but a file may ask for 4 GB.
_MAX_XZ_BYTES = 128 << 20


class _XzBytes:
    """The unpacked bytes of an xz file, in bounded memory; `lzma.LZMAFile` knows no bound."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._unpacker = self._fresh()
        self._packed = b""

    def _fresh(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        while True:
            if self._unpacker.eof:
                # Several xz streams in a row are one file, with zeros between them.
                self._packed = self._unpacker.unused_data.lstrip(b"\0") or self._more().lstrip(
                    b"\0"
                )
                if not self._packed:
                    return b""
                self._unpacker = self._fresh()
            if self._unpacker.needs_input and not self._packed:
                self._packed = self._more()
                if not self._packed:
                    raise EOFError("it ends in the middle")
            data = self._unpacker.decompress(self._packed, size)
            self._packed = b""
            if data:
                return data

    def _more(self) -> bytes:
        return self._stream.read(_TAR_RECORD_BYTES)


class _TarBytes:
    """The unpacked bytes of a tar, counted, with the last of them kept.

    tarfile reads long names and pax records into memory, however long they say they are, and takes
    a broken header for the end of the archive; `header_room` and `holds_zeros_at` answer that.
    """

    def __init__(self, stream: Readable, what: str, packed: int, bounds: Bounds) -> None:
        self._stream = stream
        self._what = what
        self._packed = packed
        self._bounds = bounds
        self._n_read = 0
        self._tail = b""
        #: Bytes that may be read before it is set again; None while a member's data are read.
        self.header_room: int | None = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        """At most so many bytes; fewer only at the end."""
        data = self._stream.read(size)
        self._n_read += len(data)
        check_ratio(self._what, self._n_read, self._packed, self._bounds)
        if self.header_room is not None:
            self.header_room -= len(data)
            if self.header_room < 0:
                raise SourceError(f"{self._what}: the tar has a header that is too long.")
        self._tail = (self._tail + data)[-4 * _TAR_RECORD_BYTES :]
        return data

    def drain(self) -> None:
        """Read to the end, where gzip, bzip2 and xz say whether all is there."""
        self.header_room = None
        while self.read(CHUNK_BYTES):
            pass

    def holds_zeros_at(self, offset: int) -> bool:
        """Whether the block at an offset that was just read is the zero block that ends a tar."""
        start = offset - (self._n_read - len(self._tail))
        block = self._tail[start : start + _TAR_BLOCK_BYTES] if start >= 0 else b""
        return block == bytes(_TAR_BLOCK_BYTES)


def extract_tar(
    stream: IO[bytes], magic: bytes, packed: int, intake: Intake, names: Names, bounds: Bounds
) -> None:
    """Take the images out of a tar.

    Args:
        stream: the archive's bytes, at their start.
        magic: its first bytes.
        packed: how many bytes there are.
        intake: takes the files.
        names: checks the members' names.
        bounds: of the ratio.

    Raises:
        SourceError: if it is damaged, or a member is unsafe.
    """
    fault = f"{intake.what}: the tar is damaged or incomplete"
    with ExitStack() as stack:
        unpacked: Readable = stream
        if magic.startswith(b"\x1f\x8b"):
            unpacked = stack.enter_context(gzip.GzipFile(fileobj=stream))
        elif magic.startswith(b"BZh"):
            unpacked = stack.enter_context(bz2.BZ2File(stream))
        elif magic.startswith(b"\xfd7zXZ\x00"):
            unpacked = _XzBytes(stream)
        source = _TarBytes(unpacked, intake.what, packed, bounds)
        try:
            tar = stack.enter_context(tarfile.open(fileobj=source, mode="r|"))  # type: ignore[call-overload]
        except FAULTS as err:
            raise SourceError(f"{fault} ({reason(err)}).") from err
        advance_to = stack.enter_context(byte_bar(f"{intake.what}: unpacking", packed))
        for member in _members(tar, source, fault):
            _take_tar_member(tar, member, intake, names)
            advance_to(stream.tell())
        if not source.holds_zeros_at(tar.offset):
            raise SourceError(f"{fault} (it ends in the middle).")
        try:
            source.drain()
        except FAULTS as err:
            raise SourceError(f"{fault} ({reason(err)}).") from err


def _members(tar: tarfile.TarFile, source: _TarBytes, fault: str) -> Iterator[tarfile.TarInfo]:
    while True:
        source.header_room = _MAX_HEADER_BYTES
        try:
            member = tar.next()
        except FAULTS as err:
            raise SourceError(f"{fault} ({reason(err)}).") from err
        if member is None:
            return
        source.header_room = None
        # tarfile remembers each member that it saw; two million of them would fill the memory.
        tar.members = []  # type: ignore[attr-defined]
        yield member


def _take_tar_member(
    tar: tarfile.TarFile, member: tarfile.TarInfo, intake: Intake, names: Names
) -> None:
    if member.issym() or member.islnk():
        raise refused(intake.what, member.name, "a link")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise refused(intake.what, member.name, "a device, pipe or sparse file")
    path = names.place(member.name, is_dir=member.isdir())
    if member.isdir():
        return
    data = tar.extractfile(member)
    fault = f"{intake.what}: {member.name!r} in the tar is damaged"
    chunks = read_chunks(data, fault, FAULTS) if data is not None else iter(())
    if path is not None and intake.wants(path):
        intake.check_room(member.size)
        intake.add(path, chunks)
    else:
        # Read past it here, so that what follows counts as a header.
        for _ in chunks:
            pass

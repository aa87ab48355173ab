"""The members of a zip archive.

References:
    APPNOTE.TXT 6.3.10 (PKWARE, 2022): 4.4.4 for the encryption flag, 4.4.5 for the compression,
    4.4.15 for file modes.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from typing import IO

from pipelines.data.sources.intake import Intake, read_chunks, reason
from pipelines.data.sources.members import FAULTS, Bounds, Names, check_ratio, refused
from pipelines.errors import SourceError
from pipelines.progress import track

#: zipfile unpacks other kinds by the chunk it has read, however much comes out: 1 MB of bzip2 may
#: become 20 GB in memory.
_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


def extract_zip(
    stream: IO[bytes], packed: int, intake: Intake, names: Names, bounds: Bounds
) -> None:
    """Take the images out of a zip.

    Args:
        stream: the archive's bytes, at their start and seekable.
        packed: how many bytes there are.
        intake: takes the files.
        names: checks the members' names.
        bounds: of the ratio.

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
        # Everything is looked at before anything is taken.
        for member in archive.infolist():
            # Not by is_dir, which raises for a member without a name.
            path = names.place(member.filename, is_dir=member.filename.endswith("/"))
            _check_zip_member(member, what)
            if path is not None and intake.wants(path):
                wanted.append((path, member))
                unpacked += member.file_size
        intake.check_room(unpacked)
        check_ratio(what, unpacked, packed, bounds)
        for path, member in track(wanted, f"{what}: unpacking", len(wanted)):
            intake.add(path, _zip_chunks(archive, member, what))


def _check_zip_member(member: zipfile.ZipInfo, what: str) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise refused(what, member.filename, "a link")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise refused(what, member.filename, "a device or pipe")
    if member.compress_type not in _COMPRESSIONS:
        raise refused(what, member.filename, "neither stored nor deflated")
    # Bit 0 of the general purpose flag: APPNOTE 4.4.4.
    if member.flag_bits & 0x1:
        raise refused(what, member.filename, "encrypted")


def _zip_chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, what: str) -> Iterator[bytes]:
    fault = f"{what}: {member.filename!r} in the zip is damaged"
    try:
        stream = archive.open(member)
    except FAULTS as err:
        raise SourceError(f"{fault} ({reason(err)}).") from err
    with stream:
        yield from read_chunks(stream, fault, FAULTS)

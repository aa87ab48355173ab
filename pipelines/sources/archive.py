"""Images from a zip or tar archive, taken out member by member.

An archive is treated as hostile: names that lead elsewhere, links, devices, encrypted or doubled
members refuse the whole archive; size, number and compression ratio are bounded; memory is bounded;
an archive inside is not opened. A truncated archive is an error, never a smaller data set.

References:
    APPNOTE.TXT 6.3.10 (PKWARE, 2022) for zip; POSIX.1-2017 `pax` for tar.
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from pipelines.atomic import file_sha256
from pipelines.errors import SourceError
from pipelines.locks import hold
from pipelines.source_kinds import ArchiveSource
from pipelines.sources.addresses import check_address, is_address, public_name
from pipelines.sources.download import download
from pipelines.sources.intake import Bounds, Facts, Intake, Names, safe_path
from pipelines.sources.stores import is_store, open_store, pull_file
from pipelines.sources.streams import reason
from pipelines.sources.tars import extract_tar
from pipelines.sources.zips import extract_zip

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
#: gzip, bzip2, xz.
_COMPRESSED_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
#: A tar header's magic and where it stands.
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", slice(257, 262)
_HEADER_BYTES = 512


def fetch_archive(source: ArchiveSource, intake: Intake, root: Path, downloads_dir: Path) -> Facts:
    """Take the images out of an archive.

    Args:
        intake: takes the files.
        root: project root, for a relative path.
        downloads_dir: where a downloaded archive is kept.

    Returns:
        The archive's name and sha256.

    Raises:
        SourceError: if it cannot be fetched or read, is not what was promised, or is unsafe.
        StorageError: if the disk is full.
    """
    about: Facts = {}
    with ExitStack() as stack:
        key = hashlib.sha256(source.location.encode()).hexdigest()[:16]
        if is_address(source.location):
            stack.enter_context(hold(downloads_dir / f"{key}.lock", f"fetch {intake.what}"))
        if is_store(source.location):
            store = open_store(source.location, intake.what, anonymous=source.anonymous)
            about = store.facts
            folder = downloads_dir / f"store-{key}"
            path = pull_file(store, folder, intake.what, source.max_bytes)
        elif is_address(source.location):
            check_address(source.location, f"{intake.what}: source.location")
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
        facts: Facts = {
            "archive": public_name(source.location),
            "sha256": _checked_sha256(path, source, intake.what),
            **about,
        }
        if source.subfolder:
            facts["subfolder"] = source.subfolder
        extract(path, intake, source.subfolder, encoding=source.encoding)
    return facts


def _checked_sha256(path: Path, source: ArchiveSource, what: str) -> str:
    name = public_name(source.location)
    try:
        got = file_sha256(path)
    except OSError as err:
        raise SourceError(
            f"{what}: the archive {name!r} cannot be read ({reason(err)}). Mend "
            f"`source.location` in params.yaml."
        ) from err
    if source.sha256 not in {None, got}:
        raise SourceError(
            f"{what}: {name}: expected sha256 {source.sha256}, got {got}. Nothing was "
            f"taken from it."
        )
    return got


def extract(
    path: Path,
    intake: Intake,
    subfolder: str,
    bounds: Bounds | None = None,
    encoding: str | None = None,
) -> None:
    """Hand the images of an archive to an intake.

    Args:
        path: a zip, tar, tar.gz, tar.bz2 or tar.xz, told by its content.
        intake: takes the files.
        subfolder: of the archive; only what is below it is taken, under names relative to it.
        bounds: tighter ones, for tests.
        encoding: code page of a zip's names where the zip does not say; None guesses.

    Raises:
        SourceError: if it is damaged, unsafe, or holds nothing below ``subfolder``.
    """
    bounds = bounds or Bounds()
    prefix = safe_path(subfolder, f"{intake.what}: source.subfolder").parts
    names = Names(intake.what, prefix, bounds)
    with path.open("rb") as stream:
        magic = stream.read(_HEADER_BYTES)
        stream.seek(0)
        if magic.startswith(_ZIP_MAGIC):
            extract_zip(stream, path.stat().st_size, intake, names, bounds, encoding)
        elif magic.startswith(_COMPRESSED_MAGIC) or magic[_TAR_MAGIC_AT] == _TAR_MAGIC:
            extract_tar(stream, magic, path.stat().st_size, intake, names, bounds)
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

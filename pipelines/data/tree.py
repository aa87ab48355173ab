"""Every file below a folder, each with the one kind that it is counted as; nothing is decoded.

One place for `new`, `fetch`, `prepare` and `validate`: what one of them passes over, all pass over.
Names say what is never an image, what may be one, and what names a split; first bytes speak for a
file without a suffix. Content decides later: a wrong suffix does no harm, and a file that passes is
decoded and refused there if it is no image. The list of decoders is short on purpose: each is
attack surface. DICOM and HEIC need an extra; without it their files are refused by a line that
names it. Links are followed, since a folder of links is a usual data set; a link to nothing, and
one that leads back into a folder around it, are told.

References:
    PNG (ISO/IEC 15948, 5.2), JPEG (ITU-T T.81, B.1.1.3), TIFF 6.0 (section 2), GIF89a (section
    17), WebP container (RIFF header), JPEG 2000 (ISO/IEC 15444-1, I.5.1), ISO base media files
    (ISO/IEC 14496-12, 4.3), DICOM PS3.10 (7.1).
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from pipelines.errors import CorruptImageError, DataError

# -- formats --------------------------------------------------------------------------------------
#: Pillow's names of the decoders that every installation has. AVIF and JPEG 2000 are in Pillow's
#: own wheels: phones and the web write the one, scanners and DICOM the other.
ALLOWED_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000")
#: What people call them.
FORMATS_TOLD = "JPEG, PNG, WEBP, BMP, TIFF, GIF, AVIF, JPEG 2000, HEIC, DICOM"

#: Formats whose decoder comes with an extra of the package: its name.
Extra = Literal["dicom", "heic"]
ExtraFormat = Literal["DICOM", "HEIC"]
EXTRAS: dict[ExtraFormat, Extra] = {"DICOM": "dicom", "HEIC": "heic"}

#: JPEG 2000 costs by what is coded, more than by pixels: so many bytes take 2 seconds of a core.
MAX_JPEG2000_BYTES = 14_000_000

#: First bytes that matter: DICOM's signature stands behind a preamble of 128 (PS3.10, 7.1).
HEAD_BYTES = 132
#: Brands of HEIF files with HEVC inside (ISO/IEC 23008-12, B.4), and the one that names no codec.
_HEIC_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
)
#: Brands of AVIF files (AV1 Image File Format): a picture, a sequence.
_AVIF_BRANDS = (b"avif", b"avis")

#: What decoders, Pillow's and pydicom's, are known to raise on malformed input.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError),
    *(AttributeError, AssertionError, RuntimeError, struct.error, zlib.error),
)


def extra_format_of(head: bytes) -> ExtraFormat | None:
    """Which format that needs an extra a file has, by its first `HEAD_BYTES`; None for others."""
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        # ``mif1`` says nothing of the codec; the list of compatible brands does.
        brands = head[16 : min(len(head), int.from_bytes(head[:4]))]
        return None if any(brand in brands for brand in _AVIF_BRANDS) else "HEIC"
    return None


def missing_extra(form: ExtraFormat) -> str:
    """Why a file is refused where the extra that reads it is not installed: one reason a format."""
    return f"{form}; pip install 'fieldlens[{EXTRAS[form]}]'"


def missing_extra_of_many(n_files: int, whose: str, reason: str) -> str | None:
    """The line for many files refused for one reason, e.g. ``8 files of blight are HEIC; pip …``.

    None where the reason is another than a missing extra.
    """
    if reason not in {missing_extra(form) for form in EXTRAS}:
        return None
    files = "1 file" if n_files == 1 else f"{n_files:,} files"
    return f"{files} of {whose} {'is' if n_files == 1 else 'are'} {reason}"


class MissingExtraError(CorruptImageError):
    """A sound file, for all that is known, whose decoder is not installed."""


# -- signatures -----------------------------------------------------------------------------------
_STARTS = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
)


def is_image(head: bytes) -> bool:
    """Whether a file may be an image, by its first `HEAD_BYTES` bytes, or all of a shorter one."""
    return (
        head.startswith(_STARTS)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS)
        or extra_format_of(head) is not None
    )


def _holds_image(file: Path) -> bool:
    """The same of a regular file; a pipe would block."""
    try:
        with file.open("rb") as stream:
            return is_image(stream.read(HEAD_BYTES))
    except OSError:
        return False


# -- names ----------------------------------------------------------------------------------------
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: Tables that speak for a folder, the first that is there.
TABLES = ("records.csv", "metadata.csv", "metadata.jsonl")
#: Written by `fetch` last; says where the images come from, and is no part of the source.
SOURCE_FILE = "SOURCE.json"

#: Looked at as images, by suffix in lower case.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo"}
    | {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".dcm", ".dicom"}
)

#: Pictures to a person, of kinds that are not read: a class made of them must not go unnoticed.
UNREAD_SUFFIXES = frozenset(
    {".nef", ".cr2", ".cr3", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".psd"}
    | {".svg", ".exr", ".jxl", ".nii", ".mha", ".npy", ".mp4", ".mov", ".avi", ".pdf"}
)

#: Folders that systems and programs leave in people's folders: macOS, Synology, Jupyter, Windows.
_LEFT_BEHIND = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_LEFT_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})

#: What publishers call the parts of a set, in lower case.
_SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainset", "train_set", "training_set"), SPLITS[0]),
    **dict.fromkeys(("val", "valid", "validation", "validation_set", "dev"), SPLITS[1]),
    **dict.fromkeys(("test", "testing", "testset", "test_set", "testing_set"), SPLITS[2]),
}
#: An endless number, as in ``1.2.840.10008.55`` (DICOM): no suffix that would name a format.
_NUMBER = re.compile(r"\.\d*")


def passed_over(path: PurePosixPath) -> Literal["hidden", "system"] | None:
    """Why a file or folder is never an image or a class; None if it may be one.

    ``hidden``: a dot in front, as in ``.DS_Store``, ``._photo.jpg`` and ``.ipynb_checkpoints``;
    ``system``: what macOS, Windows or a Synology disk station left behind. Each part of the path
    counts, relative to the source.
    """
    for part in path.parts:
        name = part.casefold()
        if name in _LEFT_BEHIND or name in _LEFT_FILES:
            return "system"
        if name.startswith("."):
            return "hidden"
    return None


def suffix_of(path: PurePosixPath) -> str:
    """The suffix in lower case, with its dot; empty where there is none or it is a mere number."""
    suffix = path.suffix.lower()
    return "" if _NUMBER.fullmatch(suffix) else suffix


def split_named(name: str) -> Split | None:
    """The split that a folder's name, or a table's cell, stands for: ``Training``, ``valid``, …."""
    return _SPLIT_NAMES.get(name.strip().casefold().replace("-", "_").replace(" ", "_"))


def is_table(path: PurePosixPath) -> bool:
    """Whether a file is called like a table that speaks for images, and lies where one does.

    At the top of the source, that is, or in a folder that names a split.
    """
    is_place = len(path.parts) == 1 or (
        len(path.parts) == 2 and split_named(path.parts[0]) is not None
    )
    return is_place and path.name.casefold() in TABLES


# -- tree -----------------------------------------------------------------------------------------
#: ``image`` may be one; of the others none is looked at.
Kind = Literal["image", "table", "other", "hidden", "system", "dangling", "loop", "special"]

#: More files, or folders, than any public set of images has: links that multiply, or a whole disk.
_MAX_FILES = 2_000_000


@dataclass(frozen=True, slots=True)
class File:
    """One file: its path relative to the folder, and what it is counted as."""

    path: PurePosixPath
    kind: Kind


def files_of(folder: Path) -> list[File]:
    """The files of a folder and of all folders below it, by path, without `fetch`'s `SOURCE_FILE`.

    Raises:
        DataError: if a folder cannot be read, or there are more files or folders than any set has.
    """
    found: list[File] = []
    for path, kind in _walk(folder):
        if path.parts == (SOURCE_FILE,):
            continue
        found.append(File(path, kind))
        if len(found) > _MAX_FILES:
            raise _too_many(folder, "files")
    return sorted(found, key=lambda file: str(file.path))


def _walk(top: Path) -> Iterator[tuple[PurePosixPath, Kind]]:
    #: Folders to look into, each with the real paths of itself and of those around it.
    waiting: list[tuple[PurePosixPath, tuple[str, ...]]]
    waiting = [(PurePosixPath(), (os.path.realpath(top),))]
    n_folders = 0
    while waiting:
        here, around = waiting.pop()
        n_folders += 1
        if n_folders > _MAX_FILES:
            # A dozen folders with links to each other have millions of paths, and need no file.
            raise _too_many(top, "folders")
        for entry in _entries(top / here):
            path = here / entry.name
            passed = passed_over(path)
            if _is_folder(entry, follow=passed is None):
                real = f"{around[-1]}{os.sep}{entry.name}"
                if entry.is_symlink():
                    real = os.path.realpath(entry.path)
                if real in around:
                    yield path, "loop"
                else:
                    waiting.append((path, (*around, real)))
            else:
                yield path, kind_of(Path(entry.path), path)


def _too_many(folder: Path, what: str) -> DataError:
    return DataError(
        f"{folder}: holds more than {_MAX_FILES:,} {what}. Name the folder of the images."
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as err:
        raise DataError(
            f"{str(folder)!r}: the folder cannot be read ({err.strerror}). Mend the permission or "
            f"take it away, then run the same command again."
        ) from err


def _is_folder(entry: os.DirEntry[str], *, follow: bool) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow)
    except OSError:
        # A link to itself.
        return False


def kind_of(file: Path, path: PurePosixPath) -> Kind:
    """What a file, or a link, is counted as; all names of its path in the source count."""
    passed = passed_over(path)
    if passed is not None:
        return passed
    suffix = suffix_of(path)
    if suffix in IMAGE_SUFFIXES:
        # Also a link to nothing: it is missed as an image of its class, with its reason.
        return "image"
    try:
        mode = file.stat().st_mode
    except OSError:
        return "dangling"
    if not stat.S_ISREG(mode):
        return "special"
    if is_table(path):
        return "table"
    return "image" if not suffix and _holds_image(file) else "other"

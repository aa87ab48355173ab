"""Which decoders may run, what is missing where one is not installed, and what first bytes say.

The list is short on purpose: each decoder is attack surface. `images` opens no format that does
not stand here. DICOM and HEIC need an extra; without it their files are refused by a line that
names it. First bytes are cheap and no judge: a file that passes is decoded later, and refused there
if it is none.

References:
    PNG (ISO/IEC 15948, 5.2), JPEG (ITU-T T.81, B.1.1.3), TIFF 6.0 (section 2), GIF89a (section
    17), WebP container (RIFF header), JPEG 2000 (ISO/IEC 15444-1, I.5.1), ISO base media files
    (ISO/IEC 14496-12, 4.3), DICOM PS3.10 (7.1).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Literal

from pipelines.errors import CorruptImageError

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
AVIF_BRANDS = (b"avif", b"avis")

#: What decoders, Pillow's and pydicom's, are known to raise on malformed input.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError),
    *(AttributeError, AssertionError, RuntimeError, struct.error, zlib.error),
)


def extra_format_of(head: bytes) -> ExtraFormat | None:
    """Which of the formats that need an extra a file has, by its content; None for any other.

    Args:
        head: its first bytes, at least `HEAD_BYTES` of them unless the file is shorter.
    """
    if head[128:132] == b"DICM":
        return "DICOM"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        # ``mif1`` says nothing of the codec; the list of compatible brands does.
        brands = head[16 : min(len(head), int.from_bytes(head[:4]))]
        return None if any(brand in brands for brand in AVIF_BRANDS) else "HEIC"
    return None


def missing_extra(form: ExtraFormat) -> str:
    """Why a file is refused where the extra that reads it is not installed: one reason a format.

    Args:
        form: of the file.
    """
    return f"{form}; pip install 'fieldlens[{EXTRAS[form]}]'"


def missing_extra_of_many(n_files: int, whose: str, reason: str) -> str | None:
    """The line for many such files, e.g. ``8 files of blight are HEIC; pip install …``.

    Args:
        n_files: how many.
        whose: the class, or what else they are of.
        reason: that each was refused for.

    Returns:
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
    """Whether a file may be an image, by its first bytes.

    Args:
        head: the first `HEAD_BYTES` bytes, or all of a shorter file.
    """
    return (
        head.startswith(_STARTS)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS)
        or extra_format_of(head) is not None
    )


def holds_image(file: Path) -> bool:
    """The same of a regular file on the disk; False where it cannot be read.

    Args:
        file: a path; must not be a pipe, which would block.
    """
    try:
        with file.open("rb") as stream:
            return is_image(stream.read(HEAD_BYTES))
    except OSError:
        return False

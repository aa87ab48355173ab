"""What the first bytes of a file without a suffix say: whether it may be an image.

Cheap, and no judge: a file that passes is decoded later, and refused there if it is none.

References:
    PNG (ISO/IEC 15948, 5.2), JPEG (ITU-T T.81, B.1.1.3), TIFF 6.0 (section 2), GIF89a (section
    17), WebP container (RIFF header), JPEG 2000 (ISO/IEC 15444-1, I.5.1), ISO base media files
    (ISO/IEC 14496-12, 4.3), DICOM PS3.10 (7.1).
"""

from __future__ import annotations

from pathlib import Path

from pipelines.data.formats import AVIF_BRANDS, HEAD_BYTES, extra_format_of

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

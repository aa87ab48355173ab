"""What is inside a DICOM file's compressed frame: its size, before a decoder trusts it.

Also run-length coding, which Pillow unpacks within bounds. Called by `pipelines.data.dicom`.

References:
    JPEG (ITU-T T.81, B.2.2), JPEG-LS (ITU-T T.87, C.2.2), JPEG 2000 (ITU-T T.800, A.5.1), DICOM
    PS3.5 annex G (run-length coding, which is TIFF's PackBits).
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Frames of JPEG that DICOM knows: sequential, lossless, JPEG-LS. Progressive ones were retired.
_FRAMES = frozenset({0xC0, 0xC1, 0xC3, 0xF7})
_OTHER_FRAMES = frozenset({0xC2, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})
_START_OF_SCAN = 0xDA
_RLE_HEADER_BYTES = 64


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, JPEG-LS or JPEG 2000 codestream declares; None for another.

    Args:
        frame: the codestream.
    """
    if frame.startswith(b"\xff\x4f\xff\x51"):
        if len(frame) < 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", frame[8:24])
        return right - left, bottom - top
    if not frame.startswith(b"\xff\xd8"):
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        code = frame[at + 1]
        if code in _FRAMES:
            height, width = struct.unpack(">2H", frame[at + 5 : at + 9])
            return width, height
        if code in _OTHER_FRAMES or code == _START_OF_SCAN:
            return None
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None


def unpack_rle(frame: bytes, n_planes: int, n_bytes: int) -> NDArray[np.uint8]:
    """The planes of bytes of a run-length coded frame.

    Args:
        frame: a header of 16 numbers, and segments.
        n_planes: how many there must be: samples times bytes of each.
        n_bytes: of each plane once unpacked; no more is unpacked.

    Returns:
        (n_planes, n_bytes).

    Raises:
        ValueError: if there are more or fewer, or a plane is too short.
    """
    count, *offsets = struct.unpack("<16I", frame[:_RLE_HEADER_BYTES])
    if count != n_planes:
        raise ValueError(f"expected {n_planes} segments (got {count})")
    ends = [*offsets[1:count], len(frame)]
    planes = np.empty((n_planes, n_bytes), dtype=np.uint8)
    for plane, start, end in zip(planes, offsets, ends, strict=False):
        row = Image.frombytes("L", (n_bytes, 1), frame[start:end], "packbits", "L")
        plane[:] = np.asarray(row)[0]
    return planes

"""JPEG files that go over their pixels again and again, or are kept whole as coefficients.

Called before anything is decoded; `pipelines.data.bounds` has the promise that this keeps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.errors import CorruptImageError

#: Passes over a picture's pixels by a JPEG's scans: 25 scans of 64 megapixels, in about a second.
#: Encoders write 10 (libjpeg) to 20; a scan that changes nothing costs a file 200 bytes.
_MAX_SCANNED_PIXELS = 1_600_000_000
#: A JPEG of several scans is kept whole as coefficients, two bytes each, whatever its scale.
_MAX_COEFFICIENT_BYTES = 340_000_000

#: Of JPEG (ITU-T T.81, B.1.1.3 and B.2.2): markers, and where a frame's header has its components.
_START_OF_IMAGE, _START_OF_SCAN = b"\xff\xd8", b"\xff\xda"
_SEQUENTIAL_FRAMES = frozenset({b"\xff\xc0", b"\xff\xc1"})
#: Second bytes of frames with arithmetic coding, slow to read; no camera writes them.
_ARITHMETIC_FRAMES = (0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_N_COMPONENTS_AT = 5
_TABLES_AND_NOTES = frozenset(
    bytes([0xFF, code]) for code in (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))
)
_USUAL_SEGMENTS = _TABLES_AND_NOTES | _SEQUENTIAL_FRAMES | {_START_OF_SCAN}

_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323


def refuse_by_scans(image: Image.Image, data: bytes, name: str) -> None:
    """Refuse a progressive JPEG, also inside a TIFF, that goes over its pixels again and again.

    The marker cannot stand in entropy-coded data (ITU-T T.81, B.1.1.5); one in a preview counts.

    Args:
        image: not decoded yet.
        data: bytes of the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if its scans are too many, or too large.
    """
    is_jpeg = image.format in {"JPEG", "MPO"}
    if is_jpeg and _has_one_scan(data):
        return
    if is_jpeg or image.info.get("compression") in {"jpeg", "tiff_jpeg"}:
        # As `data.count`, which takes 5 ms for a phone's photo where this takes 1.
        codes = np.frombuffer(data, dtype=np.uint8)
        n_scans = _n_markers(codes, _START_OF_SCAN[1])
        if n_scans * image.width * image.height > _MAX_SCANNED_PIXELS * _n_parts(image):
            raise CorruptImageError(name, f"{n_scans:,} scans of so many pixels are no photograph")
        if any(_n_markers(codes, code) for code in _ARITHMETIC_FRAMES):
            raise CorruptImageError(name, "arithmetic coding; save it as an ordinary JPEG")
    if is_jpeg and _coefficient_bytes(image) > _MAX_COEFFICIENT_BYTES:
        raise CorruptImageError(
            name,
            f"{image.width:,} x {image.height:,} pixels as a progressive JPEG: it would take "
            f"{_coefficient_bytes(image) / 1e6:,.0f} MB, at most "
            f"{_MAX_COEFFICIENT_BYTES / 1e6:,.0f} are spent. Save it without progressive scans",
        )


def _coefficient_bytes(image: Image.Image) -> float:
    """Two bytes a coefficient, of every component at its own sampling (T.81, A.1.1)."""
    layers = getattr(image, "layer", None) or [(1, 1, 1, 0)] * 4
    most = max(across for _, across, _, _ in layers) * max(down for _, _, down, _ in layers)
    share: float = sum(across * down for _, across, down, _ in layers) / max(1, most)
    return 2.0 * share * image.width * image.height


def _n_parts(image: Image.Image) -> int:
    """Strips or tiles that a TIFF lies in, each a JPEG of its own; 1 of any other picture."""
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return 1
    across, down = tags.get(_TILE_WIDTH, image.width), tags.get(_TILE_LENGTH)
    down = down if down is not None else tags.get(_ROWS_PER_STRIP, image.height)
    if not (isinstance(across, int) and isinstance(down, int) and across > 0 and down > 0):
        return 1
    return -(-image.width // across) * -(-image.height // down)


def _n_markers(codes: NDArray[np.uint8], code: int) -> int:
    """How often the byte 0xFF stands before another."""
    return int((codes[np.flatnonzero(codes[1:] == code)] == 0xFF).sum())


def _has_one_scan(data: bytes) -> bool:
    """Whether a JPEG's header rules out a second scan, as that of most cameras' photos does.

    It does where the frame is sequential and its first scan has all of its components: libjpeg
    refuses a scan after that one. False where the header holds anything unusual.
    """
    at, n_components = len(_START_OF_IMAGE), 0
    while (marker := data[at : at + 2]) in _USUAL_SEGMENTS:
        length = int.from_bytes(data[at + 2 : at + 4])
        if length < 2:
            return False
        segment = data[at + 4 : at + 2 + length]
        if marker == _START_OF_SCAN:
            return segment[:1] == bytes([n_components])
        if marker in _SEQUENTIAL_FRAMES and len(segment) > _N_COMPONENTS_AT:
            n_components = segment[_N_COMPONENTS_AT]
        at += 2 + length
    return False

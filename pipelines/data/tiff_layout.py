"""How the samples of a TIFF lie, read from its first directory, before Pillow looks at it.

Pillow keeps the upper eight bits of 16-bit colour, and says "not an image" of a layout that it does
not know. Both must be told from a TIFF that is read exactly.

Reference: TIFF Revision 6.0 (Aldus, 1992), sections 2, 7 and 8.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

#: Byte orders by the first four bytes: of TIFF, and of BigTIFF, whose numbers are twice as long.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_BIG = (b"II+\0", b"MM\0+")
_SHORT, _LONG = 3, 4
_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR = 259, 262, 266, 277, 284
_BITS, _TILE_WIDTH, _TILE_LENGTH, _EXTRA, _FORMAT = 258, 322, 323, 338, 339
_WANTED = frozenset({_COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES, _PLANAR}) | frozenset(
    {_BITS, _TILE_WIDTH, _TILE_LENGTH, _EXTRA, _FORMAT}
)
_MAX_TAGS = 4096

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSIGNED, _SIGNED, _FLOAT = 1, 2, 3
_NUMBERS = {_UNSIGNED: "unsigned", _SIGNED: "signed", _FLOAT: "floating-point"}
_PREMULTIPLIED = 1
_APART = 2

#: Grey samples that Pillow reads whole: number format and bits.
_READ_GREY = frozenset(
    {(_UNSIGNED, 16), (_SIGNED, 16), (_UNSIGNED, 32), (_SIGNED, 32), (_FLOAT, 32), (_UNSIGNED, 12)}
)
#: Those of them that it reads in files of Intel's byte order only.
_LITTLE_ENDIAN_ONLY = frozenset({(_UNSIGNED, 32), (_UNSIGNED, 12)})

#: By number of TIFF: none, CCITT, LZW, JPEG (old, new), deflate (new, old), PackBits, Zstandard.
_READ_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 50000})


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """The samples of a TIFF's first picture.

    Attributes:
        is_little_endian: byte order of the file.
        bits: of each sample of a pixel.
        number: 1 unsigned, 2 signed, 3 floating point, others as TIFF numbers them.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, others as TIFF numbers them.
        extra: meaning of each sample beyond the colour.
        is_apart: whether each channel lies by itself.
        compression: as TIFF numbers it.
        tile_pixels: pixels of a tile; 0 where the picture lies in strips.
        photometric_at: place of the number that says so, in the file's bytes; 0 if it has none.
    """

    is_little_endian: bool
    bits: tuple[int, ...]
    number: int
    photometric: int
    extra: tuple[int, ...]
    is_apart: bool
    compression: int
    tile_pixels: int
    photometric_at: int

    @property
    def is_deep(self) -> bool:
        """Whether a sample has more than 8 bits."""
        return max(self.bits) > 8

    @property
    def is_inverted(self) -> bool:
        """Whether the least value is white."""
        return self.photometric == _WHITE_IS_ZERO

    def complaint(self) -> str | None:
        """Why its pixels cannot be read exactly, and what to do; None if they can."""
        if self.compression not in _READ_COMPRESSIONS:
            return f"a TIFF of compression {self.compression}; save it with LZW or deflate"
        if not self.is_deep:
            if self.number == _SIGNED:
                return "a TIFF of signed 8-bit samples; save it as 16-bit"
            return None
        kind = (self.number, self.bits[0])
        is_grey = len(self.bits) == 1 and self.photometric in {_WHITE_IS_ZERO, _BLACK_IS_ZERO}
        if is_grey and kind in _READ_GREY:
            if self.is_little_endian or kind not in _LITTLE_ENDIAN_ONLY:
                return None
        elif (
            self.photometric == _RGB
            and kind == (_UNSIGNED, 16)
            and len(set(self.bits)) == 1
            and len(self.bits) in {3, 4}
            and not self.is_apart
            and _PREMULTIPLIED not in self.extra
        ):
            return None
        return (
            f"a TIFF of {self.words()}, which cannot be read exactly; save it as grey TIFF of 16 "
            f"bits or of 32-bit floating point, or as PNG of 16 bits"
        )

    def words(self) -> str:
        """The samples in words, e.g. ``64-bit floating-point samples``."""
        depth = "/".join(str(bits) for bits in dict.fromkeys(self.bits))
        parts = [f"{len(self.bits)} x " if len(self.bits) > 1 else "", f"{depth}-bit "]
        parts += [f"{_NUMBERS.get(self.number, 'unusual')} samples"]
        if self.photometric not in {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB}:
            parts.append(f" of colour space {self.photometric}")
        if self.is_apart and len(self.bits) > 1:
            parts.append(", each channel apart")
        if _PREMULTIPLIED in self.extra:
            parts.append(", multiplied by their opacity")
        return "".join(parts)

    def with_black_as_zero(self, data: bytes) -> bytes:
        """The file's bytes as if black were zero: Pillow knows few kinds of the other.

        Args:
            data: of this file.
        """
        if not (self.is_inverted and self.photometric_at):
            return data
        patched = bytearray(data)
        order = "<" if self.is_little_endian else ">"
        struct.pack_into(f"{order}H", patched, self.photometric_at, _BLACK_IS_ZERO)
        return bytes(patched)


def is_tiff(data: bytes) -> bool:
    """Whether the bytes begin as a TIFF does.

    Args:
        data: of a file.
    """
    return data[:4] in _ORDERS


def tiff_layout(data: bytes) -> TiffLayout | None:
    """The layout of a TIFF; None where its directory cannot be read, or it is no TIFF.

    Args:
        data: of a file.
    """
    order = _ORDERS.get(data[:4])
    if order is None:
        return None
    try:
        found, photometric_at = _directory(data, order)
    except (struct.error, IndexError):
        return None
    n_samples = found.get(_SAMPLES, (1,))[0]
    bits = found.get(_BITS, (1,))[: max(1, n_samples)]
    return TiffLayout(
        is_little_endian=order == "<",
        bits=bits * n_samples if len(bits) == 1 and 1 < n_samples <= 8 else bits,
        number=found.get(_FORMAT, (_UNSIGNED,))[0],
        photometric=found.get(_PHOTOMETRIC, (_WHITE_IS_ZERO,))[0],
        extra=found.get(_EXTRA, ()),
        is_apart=found.get(_PLANAR, (1,))[0] == _APART,
        compression=found.get(_COMPRESSION, (1,))[0],
        tile_pixels=found.get(_TILE_WIDTH, (0,))[0] * found.get(_TILE_LENGTH, (0,))[0],
        photometric_at=photometric_at,
    )


def _directory(data: bytes, order: str) -> tuple[dict[int, tuple[int, ...]], int]:
    """The wanted tags of the first directory, and where the photometric one's value stands."""
    is_big = data[:4] in _BIG
    # Where the first directory's place stands, how its tags are counted, and how one is laid out.
    first, count_form, entry_form, room = (8, "Q", "HHQ", 8) if is_big else (4, "H", "HHI", 4)
    (start,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, first)
    (n_tags,) = struct.unpack_from(f"{order}{count_form}", data, start)
    entries_at = start + struct.calcsize(f"={count_form}")
    entry_bytes = struct.calcsize(f"={entry_form}") + room
    found: dict[int, tuple[int, ...]] = {}
    photometric_at = 0
    for number in range(min(n_tags, _MAX_TAGS)):
        at = entries_at + entry_bytes * number
        tag, kind, count = struct.unpack_from(f"{order}{entry_form}", data, at)
        if tag not in _WANTED or kind not in {_SHORT, _LONG} or not 1 <= count <= 64:
            continue
        form = f"{order}{count}{'H' if kind == _SHORT else 'I'}"
        place = at + entry_bytes - room
        if struct.calcsize(form) > room:
            (place,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, place)
        found[tag] = struct.unpack_from(form, data, place)
        if tag == _PHOTOMETRIC and kind == _SHORT:
            photometric_at = place
    return found, photometric_at

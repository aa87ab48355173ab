"""PNG and TIFF with more than 8 bits a channel, read exactly with Pillow.

Pillow keeps the upper byte of 16-bit colour. Both bytes are had by reading such a file twice: once
as it is, and once as if its bytes stood in the other order. How the samples of a TIFF lie is read
from its first directory, before Pillow looks at it: it says "not an image" of a layout that it does
not know. Called by `pipelines.data.images`.

Reference: TIFF Revision 6.0 (Aldus, 1992), sections 2, 7 and 8.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.pixel_range import Levels, Rows
from pipelines.errors import CorruptImageError

#: Byte orders by the first four bytes: of TIFF, and of BigTIFF, whose numbers are twice as long.
_ORDERS = {b"II*\0": "<", b"MM\0*": ">", b"II+\0": "<", b"MM\0+": ">"}
_BIG = (b"II+\0", b"MM\0+")
_SHORT, _LONG = 3, 4
_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR = 258, 259, 262, 277, 284
_TILE_WIDTH, _TILE_LENGTH, _EXTRA, _FORMAT = 322, 323, 338, 339
_WANTED = {_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR}
_WANTED |= {_TILE_WIDTH, _TILE_LENGTH, _EXTRA, _FORMAT}
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
        """The bytes of this file as if black were zero: Pillow knows few kinds of the other."""
        if not (self.is_inverted and self.photometric_at):
            return data
        patched = bytearray(data)
        order = "<" if self.is_little_endian else ">"
        struct.pack_into(f"{order}H", patched, self.photometric_at, _BLACK_IS_ZERO)
        return bytes(patched)


def is_tiff(data: bytes) -> bool:
    """Whether the bytes begin as a TIFF does."""
    return data[:4] in _ORDERS


def tiff_layout(data: bytes) -> TiffLayout | None:
    """The layout of a TIFF; None where its directory cannot be read, or it is no TIFF."""
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


# -- stored values --------------------------------------------------------------------------------
_PNG = b"\x89PNG\r\n\x1a\n"
#: Of a PNG (W3C PNG 2003, 11.2.2): signature, length and name of IHDR, width, height, bit depth,
#: colour type; and where its check sum stands.
_DEPTH_AT, _COLOUR_AT, _HEADER_AT, _SUM_AT = 24, 25, 12, 29
_GREY_ALPHA, _RGBA = 4, 6

_FULL_16 = (0.0, 65_535.0)
_FULL = {
    ("u", 12): (0.0, 4095.0),
    ("u", 16): _FULL_16,
    ("u", 32): (0.0, 4_294_967_295.0),
    ("i", 16): (-32_768.0, 32_767.0),
    ("i", 32): (-2_147_483_648.0, 2_147_483_647.0),
}

#: libtiff gives numbers in the machine's order, whatever the file's; Pillow forgets it of these.
_NATIVE = {
    **{"I;16S": "I;16NS", "I;16BS": "I;16NS", "I;32S": "I;32NS", "I;32BS": "I;32NS"},
    **{"F;32F": "F;32NF", "F;32BF": "F;32NF"},
}
#: The same samples with their bytes in the other order.
_TWIN = {
    f"{kind};16{order}": f"{kind};16{twin}"
    for kind in ("RGB", "RGBA", "RGBX")
    for order, twin in (("L", "B"), ("B", "L"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def is_deep_png(data: bytes) -> bool:
    """Whether the bytes of a file are those of a PNG with 16 bits a channel."""
    return data[:8] == _PNG and data[_DEPTH_AT : _DEPTH_AT + 1] == b"\x10"


def readable_png(data: bytes) -> bytes:
    """A PNG of 16 bits a channel as Pillow reads it whole: grey with alpha gets four bytes a pixel.

    Pillow keeps one byte of two. Scan lines and their filters are the same for both (W3C PNG 2003,
    section 9): only the header is another.
    """
    if data[_COLOUR_AT] != _GREY_ALPHA:
        return data
    header = data[_HEADER_AT:_DEPTH_AT] + bytes([8, _RGBA]) + data[_COLOUR_AT + 1 : _SUM_AT]
    return b"".join(
        [data[:_HEADER_AT], header, struct.pack(">I", zlib.crc32(header)), data[_SUM_AT + 4 :]]
    )


def png_levels(image: Image.Image, data: bytes) -> Levels:
    """The stored values of a PNG with 16 bits a channel, as `readable_png` makes it."""
    clear = image.info.get("transparency")
    if image.mode == "RGBA" and data[_DEPTH_AT] == 8:
        image.load()

        def grey_alpha(top: int, bottom: int) -> Rows:
            pairs = _bytes_of(image, top, bottom).view(">u2")
            return pairs[:, :, 0].astype(np.uint16), pairs[:, :, 1].astype(np.uint16)

        return Levels(image.width, image.height, grey_alpha, _FULL_16)
    if image.mode in {"RGB", "RGBA"}:
        return _colour(image, data, clear)
    return _grey(image, _FULL_16, is_inverted=False, clear=clear)


def tiff_levels(image: Image.Image, data: bytes, layout: TiffLayout, name: str) -> Levels:
    """The stored values of a TIFF that `TiffLayout.complaint` has nothing against.

    ``image`` and ``data`` are those of `TiffLayout.with_black_as_zero`, not decoded yet.

    Raises:
        CorruptImageError: if Pillow reads other samples than the layout states.
    """
    _in_native_order(image)
    n_bits, is_colour = layout.bits[0], image.mode in {"RGB", "RGBA"}
    if is_colour != (len(layout.bits) > 1) or not (is_colour or _is_deep_mode(image.mode)):
        raise CorruptImageError(name, f"its directory contradicts itself ({layout.words()})")
    if is_colour:
        return _colour(image, data, None)
    if layout.number == _FLOAT:
        return _grey(image, None, is_inverted=layout.is_inverted)
    kind = "u" if layout.number == _UNSIGNED else "i"
    is_wrapped = (kind, n_bits) == ("u", 32)
    return _grey(image, _FULL[kind, n_bits], is_inverted=layout.is_inverted, is_wrapped=is_wrapped)


def _is_deep_mode(mode: str) -> bool:
    """Whether a mode of Pillow has more than 8 bits a channel, e.g. ``I;16``."""
    return mode.startswith("I") or mode == "F"


def holds_deep_tiles(image: Image.Image) -> bool:
    """Whether Pillow is about to read more than 8 bits a channel of an image not decoded yet."""
    return _is_deep_mode(image.mode) or any(
        ";16" in str(mode) or ";12" in str(mode) for mode in map(_raw_mode, _tiles(image))
    )


def grey_levels(image: Image.Image) -> Levels:
    """The stored values of a picture of another format that Pillow reads whole, e.g. JPEG 2000."""
    full = None if image.mode == "F" else _FULL["i", 32] if image.mode == "I" else _FULL_16
    return _grey(image, full, is_inverted=False)


def _grey(
    image: Image.Image,
    full: tuple[float, float] | None,
    *,
    is_inverted: bool,
    clear: Any = None,
    is_wrapped: bool = False,
) -> Levels:
    image.load()

    def rows(top: int, bottom: int) -> Rows:
        values = np.asarray(image.crop((0, top, image.width, bottom)))
        values = values.astype(values.dtype.newbyteorder("="))
        if is_wrapped:
            # Pillow has signed numbers only; the upper half came out below zero.
            values = values.view(np.uint32)
        opacity = None if clear is None else np.where(values == clear, 0, 65_535)
        return values, opacity

    return Levels(image.width, image.height, rows, full, is_inverted)


def _colour(image: Image.Image, data: bytes, clear: Any) -> Levels:
    """Both bytes of 16-bit colour, from the file and its twin."""
    twin = Image.open(io.BytesIO(data), formats=[image.format or ""])
    swapped = [tile._replace(args=_with(tile, _TWIN[_raw_mode(tile)])) for tile in _tiles(twin)]
    twin.tile = swapped
    image.load()
    twin.load()

    def rows(top: int, bottom: int) -> Rows:
        upper = _bytes_of(image, top, bottom).astype(np.uint16)
        upper <<= 8
        upper |= _bytes_of(twin, top, bottom)
        values = upper[:, :, :3]
        if upper.shape[2] == 4:
            return values, upper[:, :, 3]
        is_clear = None if clear is None else (values == clear).all(axis=2)
        return values, None if is_clear is None else np.where(is_clear, 0, 65_535)

    return Levels(image.width, image.height, rows, _FULL_16)


def _bytes_of(image: Image.Image, top: int, bottom: int) -> NDArray[np.uint8]:
    return np.asarray(image.crop((0, top, image.width, bottom)), dtype=np.uint8)


def _in_native_order(image: Image.Image) -> None:
    tiles = _tiles(image)
    image.tile = [  # type: ignore[attr-defined]
        tile._replace(args=_with(tile, _NATIVE.get(_raw_mode(tile), _raw_mode(tile))))
        if tile.codec_name == "libtiff"
        else tile
        for tile in tiles
    ]


def _tiles(image: Image.Image) -> list[Any]:
    return list(getattr(image, "tile", ()))


def _raw_mode(tile: Any) -> str:
    """How Pillow takes the samples of a tile apart, e.g. ``RGB;16B``."""
    args = tile.args
    return str(args[0] if isinstance(args, tuple) else args)


def _with(tile: Any, raw_mode: str) -> Any:
    return (raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode

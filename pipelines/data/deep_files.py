"""PNG and TIFF with more than 8 bits a channel, read exactly with Pillow.

Pillow keeps the upper byte of 16-bit colour. Both bytes are had by reading such a file twice: once
as it is, and once as if its bytes stood in the other order. Called by `pipelines.data.images`.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.deep import Levels, Rows
from pipelines.data.tiff_layout import TiffLayout
from pipelines.errors import CorruptImageError

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
_UNSIGNED, _FLOAT = 1, 3

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
    """Whether the bytes of a file are those of a PNG with 16 bits a channel.

    Args:
        data: of a file.
    """
    return data[:8] == _PNG and data[_DEPTH_AT : _DEPTH_AT + 1] == b"\x10"


def readable_png(data: bytes) -> bytes:
    """The file as Pillow can read it whole: grey with alpha of 16 bits becomes four bytes a pixel.

    Pillow keeps one byte of two. Scan lines and their filters are the same for both (W3C PNG 2003,
    section 9): only the header is another.

    Args:
        data: of a PNG with 16 bits a channel.
    """
    if data[_COLOUR_AT] != _GREY_ALPHA:
        return data
    header = data[_HEADER_AT:_DEPTH_AT] + bytes([8, _RGBA]) + data[_COLOUR_AT + 1 : _SUM_AT]
    return b"".join(
        [data[:_HEADER_AT], header, struct.pack(">I", zlib.crc32(header)), data[_SUM_AT + 4 :]]
    )


def png_levels(image: Image.Image, data: bytes) -> Levels:
    """The stored values of a PNG with 16 bits a channel.

    Args:
        image: of `readable_png`, open and not decoded yet.
        data: of `readable_png`.
    """
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

    Args:
        image: of `TiffLayout.with_black_as_zero`, open and not decoded yet.
        data: the same bytes.
        layout: of the file.
        name: what to call it in messages.

    Raises:
        CorruptImageError: if Pillow reads other samples than the layout states.
    """
    _in_native_order(image)
    n_bits, is_colour = layout.bits[0], image.mode in {"RGB", "RGBA"}
    if is_colour != (len(layout.bits) > 1) or not (is_colour or is_deep_mode(image.mode)):
        raise CorruptImageError(name, f"its directory contradicts itself ({layout.words()})")
    if is_colour:
        return _colour(image, data, None)
    if layout.number == _FLOAT:
        return _grey(image, None, is_inverted=layout.is_inverted)
    kind = "u" if layout.number == _UNSIGNED else "i"
    is_wrapped = (kind, n_bits) == ("u", 32)
    return _grey(image, _FULL[kind, n_bits], is_inverted=layout.is_inverted, is_wrapped=is_wrapped)


def is_deep_mode(mode: str) -> bool:
    """Whether a mode of Pillow has more than 8 bits a channel.

    Args:
        mode: e.g. ``I;16``.
    """
    return mode.startswith("I") or mode == "F"


def holds_deep_tiles(image: Image.Image) -> bool:
    """Whether Pillow is about to read more than 8 bits a channel.

    Args:
        image: open and not decoded yet.
    """
    return is_deep_mode(image.mode) or any(
        ";16" in str(mode) or ";12" in str(mode) for mode in map(_raw_mode, _tiles(image))
    )


def grey_levels(image: Image.Image) -> Levels:
    """The stored values of a picture of another format that Pillow reads whole, e.g. JPEG 2000.

    Args:
        image: of a mode for which `is_deep_mode` holds, open and not decoded yet.
    """
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

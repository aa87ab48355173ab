"""Image files written by hand, of pictures that show which way is up."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

RED, WHITE = (255, 0, 0), (255, 255, 255)

_TURN = Image.Transpose
#: What lays an upright picture down as a camera stores it, by EXIF orientation.
_LAID_DOWN = {
    **{2: _TURN.FLIP_LEFT_RIGHT, 3: _TURN.ROTATE_180, 4: _TURN.FLIP_TOP_BOTTOM},
    **{5: _TURN.TRANSPOSE, 6: _TURN.ROTATE_90, 7: _TURN.TRANSVERSE, 8: _TURN.ROTATE_270},
}


def picture(width_px: int = 40, height_px: int = 24, mode: str = "RGB") -> Image.Image:
    """Red above, white below."""
    image = Image.new("RGB", (width_px, height_px), WHITE)
    image.paste(RED, (0, 0, width_px, height_px // 2))
    return image.convert(mode)


def stored(upright: Image.Image, orientation: int) -> tuple[Image.Image, Image.Exif]:
    """A picture as it lies in a file with that EXIF orientation, and the EXIF block."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return upright.transpose(_LAID_DOWN[orientation]) if orientation > 1 else upright, exif


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def frames(form: str) -> bytes:
    """A file with a second picture behind the first."""
    second = Image.new("RGB", (40, 24), RED)
    return encode(picture(), form, save_all=True, append_images=[second], duration=100)


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of chunks, each with its check sum."""
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    return data


def ihdr(width: int, height: int, depth: int = 8, colour: int = 2, lace: int = 0) -> bytes:
    """The header chunk of a PNG; a depth in bits, a colour type and a kind of interlacing."""
    return struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, lace)


def deflated_png(header: bytes, pixels: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """A whole PNG; its pixels are deflated already, and more chunks stand before them."""
    return png((b"IHDR", header), *more, (b"IDAT", pixels), (b"IEND", b""))


def deflated(row: bytes, n_rows: int) -> bytes:
    """The same row again and again, of which memory never holds more than a few megabytes."""
    packer = zlib.compressobj(1)
    n_at_once = max(1, min(n_rows, 4_000_000 // len(row)))
    parts = [packer.compress(row * n_at_once) for _ in range(n_rows // n_at_once)]
    return b"".join([*parts, packer.compress(row * (n_rows % n_at_once)), packer.flush()])


def progressive(side_px: int, n_scans: int) -> bytes:
    """A JPEG that passes over its pixels so many times more than a usual one of 10 scans."""
    whole = encode(Image.new("L", (side_px, side_px)), "JPEG", progressive=True, quality=50)
    start = whole.rindex(b"\xff\xc4", 0, whole.rindex(b"\xff\xda"))
    return whole[:-2] + whole[start:-2] * n_scans + whole[-2:]

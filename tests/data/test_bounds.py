"""What a picture may cost: no file, accepted or refused, takes 500 MB and 2 s of a predictor."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.images import open_image
from pipelines.data.pixel_range import MAX_PIXELS, max_pixels
from pipelines.errors import ConfigError, CorruptImageError

COST = Path(__file__).with_name("picture_cost.py")
MAX_MB, MAX_S = 500, 2.0
Saved = Callable[[Path], None]


def cost(file: Path, **environment: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, str(COST), str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env={**os.environ, **environment},
    )
    found: dict[str, object] = json.loads(done.stdout)
    return found


def textured(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Every filter and code of an encoder gets something to do; made of one tile, so quickly."""
    draw = np.random.default_rng(1)
    smooth = draw.integers(0, 226, (32, 32, 3), dtype=np.uint8)
    tile = np.asarray(Image.fromarray(smooth).resize((512, 512), Image.Resampling.BICUBIC))
    tile = tile + draw.integers(0, 14, (512, 512, 3), dtype=np.uint8)
    tiles = np.tile(tile, (-(-height // 512), -(-width // 512), 1))[:height, :width]
    image = Image.fromarray(tiles)
    if mode in {"RGBA", "LA"}:
        image.putalpha(image.getchannel(0))
        return image.convert(mode)
    return image.convert(mode)


def saved(width: int, height: int, form: str, mode: str = "RGB", **options: object) -> Saved:
    def save(file: Path) -> None:
        textured(width, height, mode).save(file, form, **options)

    return save


def deep_png(side: int, colour: int, channels: int) -> Saved:
    """16 bits a channel; rows filtered by Paeth's rule, which takes longest."""

    def save(file: Path) -> None:
        draw = np.random.default_rng(2)
        row = b"\x04" + draw.integers(0, 255, side * channels * 2, dtype=np.uint8).tobytes()
        packer = zlib.compressobj(1)
        body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
        header = struct.pack(">IIBBBBB", side, side, 16, colour, 0, 0, 0)
        file.write_bytes(png_of((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")))

    return save


def interlaced_png(side: int) -> Saved:
    """Zeros in seven passes; 8-bit RGB."""

    def save(file: Path) -> None:
        packer, parts = zlib.compressobj(1), []
        steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4))
        for left, top, across, down in (*steps, (1, 0, 2, 2), (0, 1, 1, 2)):
            n_columns, n_rows = -(-(side - left) // across), -(-(side - top) // down)
            parts += [packer.compress(b"\x04" + bytes(3 * n_columns)) for _ in range(n_rows)]
        body = b"".join([*parts, packer.flush()])
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 1)
        file.write_bytes(png_of((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")))

    return save


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        out += struct.pack(">I", len(body)) + kind + body
        out += struct.pack(">I", zlib.crc32(kind + body))
    return out


def of_floats(side: int, **options: object) -> Saved:
    def save(file: Path) -> None:
        Image.new("F", (side, side), 7.5).save(file, "TIFF", **options)

    return save


def deep_tiff(side: int, **options: object) -> Saved:
    def save(file: Path) -> None:
        levels = np.tile(np.arange(side, dtype=np.uint16), (side, 1))
        Image.fromarray(levels).save(file, "TIFF", **options)

    return save


def run_length_bmp(side: int) -> Saved:
    def save(file: Path) -> None:
        body = (b"\x01\x05" * side + b"\0\0") * side + b"\0\1"
        info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
        head = b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078)
        file.write_bytes(head + info + bytes(1024) + body)

    return save


def large_tiles(file: Path) -> None:
    """64 x 64 pixels in one tile of 32,768 x 32,768: a gigabyte of zeros, in a megabyte."""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, 32_768), (323, 32_768), (324, 200), (325, len(body))]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file.write_bytes((head + bytes(4)).ljust(200, b"\0") + body)


def many_scans(side: int, n_scans: int) -> Saved:
    def save(file: Path) -> None:
        buffer = io.BytesIO()
        Image.new("L", (side, side)).save(buffer, "JPEG", progressive=True, quality=50)
        whole = buffer.getvalue()
        start = whole.rindex(b"\xff\xc4", 0, whole.rindex(b"\xff\xda"))
        file.write_bytes(whole[:-2] + whole[start:-2] * n_scans + whole[-2:])

    return save


PLAIN = {"compress_level": 1}
LZW, DEFLATE = {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}
#: What it is, how it is made, and whether it is taken. Of each kind one close to its bound, and one
#: behind it: both must cost little.
COSTS: list[tuple[str, Saved, str]] = [
    ("phone of 108 MP", saved(12_000, 9_000, "JPEG", quality=90), "taken"),
    ("phone of 200 MP", saved(16_320, 12_240, "JPEG", quality=85), "taken"),
    (
        "108 MP, every colour sample",
        saved(12_000, 9_000, "JPEG", quality=95, subsampling=0),
        "taken",
    ),
    ("108 MP progressive", saved(12_000, 9_000, "JPEG", progressive=True), "taken"),
    (
        "108 MP progressive, every colour sample",
        saved(12_000, 9_000, "JPEG", progressive=True, subsampling=0),
        "refused",
    ),
    ("CMYK JPEG", saved(8_000, 8_000, "JPEG", "CMYK"), "taken"),
    ("JPEG of 65,000 px, long", saved(65_000, 3_300, "JPEG"), "taken"),
    ("JPEG of 65,000 px, a line", saved(65_000, 9, "JPEG"), "refused"),
    ("JPEG of 65,000 px, too many", saved(65_000, 6_500, "JPEG", "L", quality=20), "refused"),
    ("JPEG of 14 scans", many_scans(8_000, 5), "taken"),
    ("JPEG of 100 scans", many_scans(8_000, 100), "refused"),
    ("PNG, grey", saved(7_990, 7_990, "PNG", "L", **PLAIN), "taken"),
    ("PNG, RGB", saved(6_300, 6_300, "PNG", **PLAIN), "taken"),
    ("PNG, RGB, too large", saved(6_400, 6_400, "PNG", **PLAIN), "refused"),
    ("PNG, RGBA", saved(5_050, 5_050, "PNG", "RGBA", **PLAIN), "taken"),
    ("PNG, RGBA, too large", saved(5_100, 5_100, "PNG", "RGBA", **PLAIN), "refused"),
    ("PNG, palette", saved(7_990, 7_990, "PNG", "P", **PLAIN), "taken"),
    ("PNG, palette with a clear colour", saved(5_050, 5_050, "PNG", "P", transparency=3), "taken"),
    ("PNG, interlaced", interlaced_png(6_300), "taken"),
    ("PNG, 16-bit grey", deep_png(5_050, 0, 1), "taken"),
    ("PNG, 16-bit grey and alpha", deep_png(3_020, 4, 2), "taken"),
    ("PNG, 16-bit RGB", deep_png(3_570, 2, 3), "taken"),
    ("PNG, 16-bit RGBA", deep_png(3_020, 6, 4), "taken"),
    ("PNG, 16-bit RGBA, too large", deep_png(3_100, 6, 4), "refused"),
    ("WebP", saved(4_600, 4_600, "WEBP", method=0, quality=60), "taken"),
    (
        "WebP, without loss",
        saved(4_600, 4_600, "WEBP", lossless=True, method=0, quality=0),
        "taken",
    ),
    ("WebP, too large", saved(8_000, 8_000, "WEBP", method=0, quality=50), "refused"),
    ("GIF", saved(7_990, 7_990, "GIF", "P"), "taken"),
    ("BMP", saved(5_700, 5_700, "BMP"), "taken"),
    ("BMP, run lengths", run_length_bmp(1_500), "taken"),
    ("BMP, long run lengths", run_length_bmp(5_000), "refused"),
    ("TIFF", saved(5_600, 5_600, "TIFF"), "taken"),
    ("TIFF, LZW", saved(4_900, 4_900, "TIFF", **LZW), "taken"),
    ("TIFF, deflate", saved(5_600, 5_600, "TIFF", **DEFLATE), "taken"),
    ("TIFF, RGBA", saved(4_550, 4_550, "TIFF", "RGBA", **DEFLATE), "taken"),
    ("TIFF, CMYK", saved(4_550, 4_550, "TIFF", "CMYK", **DEFLATE), "taken"),
    ("TIFF, JPEG within", saved(5_600, 5_600, "TIFF", compression="jpeg"), "taken"),
    ("TIFF, floats", of_floats(3_990, **DEFLATE), "taken"),
    ("TIFF, floats as they are", of_floats(3_990), "taken"),
    ("TIFF, floats, too large", of_floats(5_000, **DEFLATE), "refused"),
    ("TIFF, 16-bit grey", deep_tiff(5_050, **LZW), "taken"),
    ("TIFF, tiles of a gigapixel", large_tiles, "refused"),
    ("a line", saved(1, 40_000, "PNG"), "refused"),
    ("a strip", saved(20, 60_000, "PNG"), "refused"),
    ("as long as may be", saved(1_000, 20_000, "PNG"), "taken"),
]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("save", "result"), [row[1:] for row in COSTS], ids=[row[0] for row in COSTS]
)
def test_no_file_costs_half_a_gigabyte_or_two_seconds(save, result, tmp_path) -> None:
    file = tmp_path / "picture"
    save(file)
    found = cost(file)
    print(f"{file.stat().st_size / 1e6:.1f} MB file: {found}")  # noqa: T201 (for docs)
    assert found["result"] == result, found
    assert found["peak_mb"] < MAX_MB, found
    assert found["cpu_s"] < MAX_S, found


def test_setting_moves_the_bound_and_its_message_names_it(tmp_path, monkeypatch) -> None:
    file = tmp_path / "a.png"
    Image.new("L", (200, 100)).save(file)
    assert max_pixels() == MAX_PIXELS
    monkeypatch.setenv("FIELDLENS_MAX_PIXELS", "19999")
    with pytest.raises(CorruptImageError, match=r"19,999 are decoded.*FIELDLENS_MAX_PIXELS"):
        open_image(file)
    monkeypatch.setenv("FIELDLENS_MAX_PIXELS", "20000")
    assert open_image(file).rgb.size == (200, 100)
    monkeypatch.setenv("FIELDLENS_MAX_PIXELS", "many")
    with pytest.raises(ConfigError, match="FIELDLENS_MAX_PIXELS: expected a whole number"):
        open_image(file)


def test_jpeg_beyond_the_bound_is_decoded_smaller_where_all_of_it_was_asked_for(
    tmp_path, monkeypatch
) -> None:
    file = tmp_path / "a.jpg"
    Image.new("RGB", (400, 200), "teal").save(file)
    monkeypatch.setenv("FIELDLENS_MAX_PIXELS", "30000")
    opened = open_image(file)
    assert (opened.rgb.size, opened.width_px, opened.height_px) == ((200, 100), 400, 200)


def test_memory_that_ends_is_a_refusal(monkeypatch) -> None:
    def no_memory(self: Image.Image, *_: object) -> None:
        raise MemoryError

    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_memory)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", no_memory, raising=False)
    with pytest.raises(CorruptImageError, match="not enough memory"):
        open_image(buffer.getvalue())

"""More than 8 bits a channel shown by one range; and what any picture may cost."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.images import glance, is_deep, levels_of, open_image
from pipelines.data.pixel_range import (
    MAX_PIXELS,
    Levels,
    Reading,
    UnscaledError,
    as_rgb,
    max_pixels,
    outside_words,
)
from pipelines.errors import ConfigError, CorruptImageError
from tests.image_files import deflated, deflated_png, encode, ihdr, progressive

RANGE_12 = Reading(range=(0.0, 4095.0))
FULL = Reading(range="full")
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}


def png16(values: np.ndarray, colour: int, *, clear: bytes = b"") -> bytes:
    """A PNG of 16 bits a channel; each row is filtered by another rule."""
    height, width = values.shape[:2]
    raw = values.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    step, out, above = 2 * CHANNELS[colour], b"", np.zeros(raw.shape[1], int)
    for number, row in enumerate(raw):
        left = np.concatenate([np.zeros(step, int), row[:-step]])
        corner = np.concatenate([np.zeros(step, int), above[:-step]])
        guess = (0 * row, left, above, (left + above) // 2, paeth(left, above, corner))[number % 5]
        out += bytes([number % 5]) + ((row - guess) % 256).astype(np.uint8).tobytes()
        above = row
    more = [(b"tRNS", clear)] if clear else []
    return deflated_png(ihdr(width, height, 16, colour), zlib.compress(out), *more)


def paeth(left: np.ndarray, above: np.ndarray, corner: np.ndarray) -> np.ndarray:
    whole = left + above - corner
    a, b, c = abs(whole - left), abs(whole - above), abs(whole - corner)
    return np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    photometric: int = 1,
    deflated: bool = False,
    is_big: bool = False,
    **more: int,
) -> bytes:
    """A TIFF of one strip, with the bytes of the values as they are, from byte 640 on."""
    height, width = values.shape[:2]
    n = values.shape[2] if values.ndim == 3 else 1
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    body = zlib.compress(body) if deflated else body
    number = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags = {256: ("I", width), 257: ("I", height), 258: ("H", *[8 * values.dtype.itemsize] * n)}
    tags |= {259: ("H", 8 if deflated else 1), 262: ("H", photometric), 273: ("I", 640)}
    tags |= {277: ("H", n), 278: ("I", height), 279: ("I", len(body)), 339: ("H", *[number] * n)}
    tags |= {int(name.removeprefix("tag")): ("H", value) for name, value in more.items()}
    room, wide = (8, "Q") if is_big else (4, "I")
    start = (f"{order}HHHQQ", 43, 8, 0, 16) if is_big else (f"{order}HIH", 42, 8)
    head, far = (b"II" if order == "<" else b"MM") + struct.pack(*start, len(tags)), b""
    for tag, (form, *numbers) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        if len(value) > room:
            far, value = far + value, struct.pack(f"{order}{wide}", 600 + len(far))
        head += struct.pack(f"{order}HH{wide}", tag, {"H": 3, "I": 4}[form], len(numbers))
        head += value.ljust(room, b"\0")
    return head.ljust(600, b"\0") + far.ljust(40, b"\0") + body


def shown(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The rule, spelt out."""
    wide = np.nan_to_num(values.astype(float), nan=low, posinf=high, neginf=low)
    levels = np.rint((wide.clip(low, high) - low) * (255.0 / (high - low))).astype(int)
    return np.stack([levels] * 3, axis=-1) if levels.ndim == 2 else levels


def noise(dtype: str, *shape: int) -> np.ndarray:
    draw = np.random.default_rng(5)
    if dtype.startswith("f"):
        return draw.uniform(-100, 4200, shape).astype(dtype)
    info = np.iinfo(dtype)
    return draw.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


# -- read exactly ---------------------------------------------------------------------------------
@pytest.mark.parametrize("colour", [0, 2])
@pytest.mark.parametrize("stated", [(0.0, 4095.0), (100.0, 60_000.0), "full"])
def test_png_of_16_bits_shows_what_it_holds(colour, stated) -> None:
    values = noise("uint16", 31, 23, *([3] if colour == 2 else []))
    opened = open_image(png16(values, colour), reading=Reading(range=stated))
    low, high = (0, 65_535) if stated == "full" else stated
    np.testing.assert_array_equal(np.asarray(opened.rgb), shown(values, low, high))
    beyond = (values < low) | (values > high)
    assert opened.outside == (beyond.any(axis=2) if colour == 2 else beyond).mean()


@pytest.mark.parametrize(("colour", "mode"), [(4, "LA"), (6, "RGBA")])
def test_alpha_of_16_bits_is_laid_over_white(colour, mode) -> None:
    values = noise("uint16", 17, 19, CHANNELS[colour]) % 4096
    values[:, :, -1] *= 16
    opened = open_image(png16(values, colour), reading=RANGE_12)
    share = values[:, :, -1:] / 65_535
    colours = values[:, :, :-1] if colour == 6 else values[:, :, 0]
    expected = 255 - (255 - shown(colours, 0, 4095)) * share
    assert opened.mode == mode
    assert np.abs(np.asarray(opened.rgb) - expected).max() <= 0.5 + 1e-9


def test_clear_values_of_16_bits_are_white() -> None:
    grey = np.array([[7, 300], [4095, 301]], np.uint16)
    opened = open_image(png16(grey, 0, clear=struct.pack(">H", 301)), reading=RANGE_12)
    assert np.asarray(opened.rgb)[..., 0].tolist() == [[0, 19], [255, 255]]
    colours = np.stack([grey, grey, grey], axis=2)
    opened = open_image(png16(colours, 2, clear=struct.pack(">3H", 7, 7, 7)), reading=RANGE_12)
    assert np.asarray(opened.rgb)[..., 1].tolist() == [[255, 19], [255, 19]]


def refused(data: bytes, match: str) -> None:
    with pytest.raises(CorruptImageError, match=match):
        open_image(data, reading=RANGE_12)


#: Pillow does not know BigTIFF of Motorola's byte order; nothing wrong may come of it.
ORDERS = pytest.mark.parametrize(("order", "is_big"), [("<", False), ("<", True), (">", False)])
DEFLATED = pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflated"])


@ORDERS
@DEFLATED
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "float32"])
def test_grey_tiff_shows_what_it_holds(dtype, photometric, order, deflated, is_big) -> None:
    values = noise(dtype, 29, 21)
    data = tiff(values, order=order, photometric=photometric, deflated=deflated, is_big=is_big)
    low, high = (-50.0, 4000.0)
    if dtype == "uint32" and order == ">":
        refused(data, "32-bit unsigned samples")
        return
    opened = open_image(data, reading=Reading(range=(low, high)))
    expected = shown(values, low, high)
    expected = 255 - expected if photometric == 0 else expected
    np.testing.assert_array_equal(np.asarray(opened.rgb), expected)
    assert levels_of(data).extent() == (values.min(), values.max())
    if dtype != "float32":
        info = np.iinfo(dtype)
        assert levels_of(data).full == (info.min, info.max)


@ORDERS
@DEFLATED
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_tiff_shows_what_it_holds(channels, order, deflated, is_big) -> None:
    values = noise("uint16", 29, 21, channels)
    more = {"tag338": 2} if channels == 4 else {}
    data = tiff(values, order=order, photometric=2, deflated=deflated, is_big=is_big, **more)
    opened = open_image(data, reading=Reading(range=(300.0, 40_000.0)))
    expected = shown(values[:, :, :3], 300, 40_000).astype(float)
    if channels == 4:
        expected = 255 - (255 - expected) * (values[:, :, 3:] / 65_535)
    assert np.abs(np.asarray(opened.rgb) - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("n", [1, 3])
def test_big_tiff_of_motorolas_order_is_refused(n) -> None:
    values = noise("uint16", 29, 21, *([3] if n == 3 else []))
    data = tiff(values, order=">", photometric=2 if n == 3 else 1, is_big=True)
    refused(data, "not an image of a known format|layout is not read")


def test_twelve_packed_bits_are_read() -> None:
    values = (np.arange(16 * 12).reshape(12, 16) * 21 % 4096).astype(int)
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] << 4 | pairs[:, 1] >> 8), pairs[:, 1]], 1)
    data = bytearray(tiff(np.zeros((12, 16), np.uint16), tag258=12))
    data[640:] = (packed & 255).astype(np.uint8).tobytes()
    np.testing.assert_array_equal(
        np.asarray(open_image(bytes(data), reading=FULL).rgb), shown(values, 0, 4095)
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(noise("float64", 4, 5)), "64-bit floating-point samples"),
        (tiff(noise("float16", 4, 5)), "16-bit floating-point samples"),
        (tiff(noise("uint64", 4, 5)), "64-bit unsigned samples"),
        (tiff(noise("uint16", 4, 5, 2), tag338=2), "2 x 16-bit unsigned samples"),
        (tiff(noise("uint16", 4, 5, 4), photometric=5), "of colour space 5"),
        (tiff(noise("uint16", 4, 5, 3), photometric=2, tag284=2), "each channel apart"),
        (tiff(noise("uint16", 4, 5, 4), photometric=2, tag338=1), "multiplied by their opacity"),
        (tiff(noise("float32", 4, 5, 3), photometric=2), "3 x 32-bit floating-point samples"),
        (tiff(noise("int8", 4, 5)), "signed 8-bit samples"),
        (tiff(noise("uint16", 4, 5), tag259=34_925), "compression 34925"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_exactly_is_refused_by_name(data, reason) -> None:
    for door in (open_image, lambda data, reading: glance(data, side_px=16, reading=reading)):
        with pytest.raises(CorruptImageError) as caught:
            door(data, reading=RANGE_12)
        assert reason in caught.value.reason
        assert "save it" in caught.value.reason
        assert "\n" not in str(caught.value)


# -- one range ------------------------------------------------------------------------------------
def test_one_bright_pixel_changes_no_other() -> None:
    scene = noise("uint16", 40, 40) % 3000
    brighter = scene.copy()
    scene[0, 0], brighter[0, 0] = 4095, 4096
    first, second = (
        np.asarray(open_image(png16(each, 0), reading=RANGE_12).rgb) for each in (scene, brighter)
    )
    np.testing.assert_array_equal(first, second)
    grey = [glance(png16(each, 0), side_px=20, reading=RANGE_12).grey for each in (scene, brighter)]
    assert grey[0].tobytes() == grey[1].tobytes()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["uint16", "int32", "float32"]),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.integers(0, 99),
)
def test_levels_rise_and_ends_are_black_and_white(dtype, low, width, seed) -> None:
    draw = np.random.default_rng(seed)
    values = draw.uniform(low - width, low + 2 * width, (5, 7))
    info = np.iinfo(dtype) if dtype != "float32" else np.finfo(dtype)
    values = values.clip(info.min, info.max).astype(dtype)
    levels = Levels(7, 5, lambda top, bottom: (values[top:bottom], None), None)
    picture, outside = as_rgb(levels, (low, low + width), "a")
    grey, values = np.asarray(picture)[..., 0].ravel(), values.astype(np.float64)
    order = values.ravel().argsort(kind="stable")
    assert (np.diff(grey[order].astype(int)) >= 0).all()
    assert (grey[values.ravel() <= low] == 0).all()
    assert (grey[values.ravel() >= low + width] == 255).all()
    assert outside == ((values < low) | (values > low + width)).mean()


def test_what_is_no_number_is_outside_and_black() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    data = tiff(np.repeat(values, 4, axis=0))
    opened = open_image(data, reading=Reading(range=(0.0, 1.0)))
    assert np.asarray(opened.rgb)[0, :, 0].tolist() == [0, 255, 0, 128]
    assert opened.outside == 0.75
    assert levels_of(data).extent() == (0.5, 0.5)


@pytest.mark.parametrize(
    ("data", "reading", "words"),
    [
        (png16(noise("uint16", 6, 6, 3), 2), Reading(), "expected a range"),
        (tiff(noise("float32", 6, 6)), FULL, "no full range"),
        (tiff(np.full((6, 6), np.nan, np.float32)), Reading(), "no finite value"),
    ],
)
def test_without_a_range_it_is_refused_with_what_was_measured(data, reading, words) -> None:
    with pytest.raises(UnscaledError, match=words) as caught:
        open_image(data, name="a.tif", reading=reading)
    assert "image.range" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert is_deep(data)


def test_eight_bits_are_taken_as_they_are_whatever_the_range() -> None:
    data = encode(Image.new("L", (5, 5), 77), "PNG")
    opened = open_image(data, reading=RANGE_12)
    assert (opened.rgb.getpixel((0, 0)), opened.outside) == ((77, 77, 77), 0)
    assert not is_deep(data)
    assert levels_of(data) is None


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.0, ""), (0.031, "3.1 % of the pixels"), (0.00001, "Less than 0.1 % of the pixels")],
)
def test_what_is_outside_is_told(share, words) -> None:
    said = outside_words(share, (0.0, 4095.0))
    assert said.startswith(words)
    assert not words or "0..4095 of the training data" in said


# -- the faults -----------------------------------------------------------------------------------
#: What a file's values are, as black and white, and the mean grey level that is then right.
FAULTS = [
    ("same_scene_peak4095.png", (0, 4095), 147.5),
    ("same_scene_peak4096.png", (0, 4095), 147.5),
    ("rgb12in16.png", (0, 4095), 111.7),
    ("float01.tif", (0, 1), 135.3),
    ("float1e5.tif", (0, 1e5), 135.3),
    ("hu.tif", (-1000, 3000), 84.5),
    ("miniswhite16.tif", (0, 65_535), 119.7),
]


@pytest.mark.parametrize(("name", "stated", "mean"), FAULTS, ids=[row[0] for row in FAULTS])
def test_faults_come_out_by_the_stated_range(name, stated, mean, faults_dir: Path) -> None:
    file = faults_dir / "pictures" / name
    low, high = map(float, stated)
    opened = open_image(file, reading=Reading(range=(low, high)))
    assert np.asarray(opened.rgb).mean() == pytest.approx(mean, abs=0.1)
    with pytest.raises(UnscaledError, match=r"image\.range"):
        open_image(file)


# -- what a picture may cost ----------------------------------------------------------------------
#: No file, accepted or refused, takes more of a predictor.
MAX_MB, MAX_S = 500, 2.0
Saved = Callable[[Path], object]


def cost_of(file: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(
        subprocess.run(
            [sys.executable, "-m", "tests.data.picture_cost", str(file)],
            capture_output=True,
            check=True,
            timeout=120,
            cwd=Path(__file__).parents[2],
        ).stdout
    )
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


def saved(width: int, height: int, form: str, mode: str = "RGB", **options: object) -> Saved:
    return lambda file: textured(width, height, mode).save(file, form, **options)


def deep_png(side: int, colour: int) -> Saved:
    """16 bits a channel; rows filtered by Paeth's rule, which takes longest."""
    row = np.random.default_rng(2).bytes(side * CHANNELS[colour] * 2)
    header = ihdr(side, side, 16, colour)
    return lambda file: file.write_bytes(deflated_png(header, deflated(b"\x04" + row, side)))


def interlaced_png(side: int, file: Path) -> None:
    """Zeros in seven passes; 8-bit RGB."""
    packer, parts = zlib.compressobj(1), []
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4))
    for left, top, across, down in (*steps, (1, 0, 2, 2), (0, 1, 1, 2)):
        n_columns, n_rows = -(-(side - left) // across), -(-(side - top) // down)
        parts += [packer.compress(b"\x04" + bytes(3 * n_columns)) for _ in range(n_rows)]
    body = b"".join([*parts, packer.flush()])
    file.write_bytes(deflated_png(ihdr(side, side, lace=1), body))


def of_floats(side: int, **options: object) -> Saved:
    return lambda file: Image.new("F", (side, side), 7.5).save(file, "TIFF", **options)


def deep_tiff(side: int, **options: object) -> Saved:
    levels = np.broadcast_to(np.arange(side, dtype=np.uint16), (side, side))
    return lambda file: Image.fromarray(levels.copy()).save(file, "TIFF", **options)


def run_length_bmp(side: int, file: Path) -> None:
    body = (b"\x01\x05" * side + b"\0\0") * side + b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(body), 0, 0, 256, 0)
    head = b"BM" + struct.pack("<IHHI", 1078 + len(body), 0, 0, 1078)
    file.write_bytes(head + info + bytes(1024) + body)


def large_tiles(file: Path) -> None:
    """64 x 64 pixels in one tile of 32,768 x 32,768: a gigabyte of zeros, in a megabyte."""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()
    tags = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, 32_768), (323, 32_768), (324, 200), (325, len(body))]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file.write_bytes((head + bytes(4)).ljust(200, b"\0") + body)


def scanned(side: int, n_scans: int) -> Saved:
    return lambda file: file.write_bytes(progressive(side, n_scans))


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
    ("JPEG of 14 scans", scanned(8_000, 5), "taken"),
    ("JPEG of 100 scans", scanned(8_000, 100), "refused"),
    ("PNG, grey", saved(7_990, 7_990, "PNG", "L", **PLAIN), "taken"),
    ("PNG, RGB", saved(6_300, 6_300, "PNG", **PLAIN), "taken"),
    ("PNG, RGB, too large", saved(6_400, 6_400, "PNG", **PLAIN), "refused"),
    ("PNG, RGBA", saved(5_050, 5_050, "PNG", "RGBA", **PLAIN), "taken"),
    ("PNG, RGBA, too large", saved(5_100, 5_100, "PNG", "RGBA", **PLAIN), "refused"),
    ("PNG, palette", saved(7_990, 7_990, "PNG", "P", **PLAIN), "taken"),
    ("PNG, palette with a clear colour", saved(5_050, 5_050, "PNG", "P", transparency=3), "taken"),
    ("PNG, interlaced", partial(interlaced_png, 6_300), "taken"),
    ("PNG, 16-bit grey", deep_png(5_050, 0), "taken"),
    ("PNG, 16-bit grey and alpha", deep_png(3_020, 4), "taken"),
    ("PNG, 16-bit RGB", deep_png(3_570, 2), "taken"),
    ("PNG, 16-bit RGBA", deep_png(3_020, 6), "taken"),
    ("PNG, 16-bit RGBA, too large", deep_png(3_100, 6), "refused"),
    ("WebP", saved(4_600, 4_600, "WEBP", method=0, quality=60), "taken"),
    (
        "WebP, without loss",
        saved(4_600, 4_600, "WEBP", lossless=True, method=0, quality=0),
        "taken",
    ),
    ("WebP, too large", saved(8_000, 8_000, "WEBP", method=0, quality=50), "refused"),
    ("GIF", saved(7_990, 7_990, "GIF", "P"), "taken"),
    ("BMP", saved(5_700, 5_700, "BMP"), "taken"),
    ("BMP, run lengths", partial(run_length_bmp, 1_500), "taken"),
    ("BMP, long run lengths", partial(run_length_bmp, 5_000), "refused"),
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
    found = cost_of(file)
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

    data = encode(Image.new("RGB", (9, 9)), "PNG")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", no_memory)
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", no_memory, raising=False)
    with pytest.raises(CorruptImageError, match="not enough memory"):
        open_image(data)

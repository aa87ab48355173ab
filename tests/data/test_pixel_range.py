"""More than 8 bits a channel: read exactly, shown by one range, told where it is left."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.data.images import glance, is_deep, levels_of, open_image
from pipelines.data.pixel_range import Levels, Reading, UnscaledError, as_rgb, outside_words
from pipelines.errors import CorruptImageError

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
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), *([(b"tRNS", clear)] if clear else [])]
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (*chunks, (b"IDAT", zlib.compress(out)), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    return data


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
    """A TIFF of one strip, with the bytes of the values as they are."""
    height, width = values.shape[:2]
    n = values.shape[2] if values.ndim == 3 else 1
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    body = zlib.compress(body) if deflated else body
    number = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    short, long_ = 3, 4
    # Room for values that do not fit into a tag: bits and formats of each sample.
    at_bits, at_formats, at_body = 600, 620, 640
    bits = struct.pack(f"{order}{n}H", *[8 * values.dtype.itemsize] * n)
    formats = struct.pack(f"{order}{n}H", *[number] * n)
    room = 8 if is_big else 4
    pointer = f"{order}{'Q' if is_big else 'I'}"
    tags: dict[int, tuple[int, int, bytes]] = {
        256: (long_, 1, struct.pack(f"{order}I", width)),
        257: (long_, 1, struct.pack(f"{order}I", height)),
        258: (short, n, bits if len(bits) <= room else struct.pack(pointer, at_bits)),
        259: (short, 1, struct.pack(f"{order}H", 8 if deflated else 1)),
        262: (short, 1, struct.pack(f"{order}H", photometric)),
        273: (long_, 1, struct.pack(f"{order}I", at_body)),
        277: (short, 1, struct.pack(f"{order}H", n)),
        278: (long_, 1, struct.pack(f"{order}I", height)),
        279: (long_, 1, struct.pack(f"{order}I", len(body))),
        339: (short, n, formats if len(formats) <= room else struct.pack(pointer, at_formats)),
    }
    for name, value in more.items():
        tags[int(name.removeprefix("tag"))] = (short, 1, struct.pack(f"{order}H", value))
    mark = b"II" if order == "<" else b"MM"
    if is_big:
        head = mark + struct.pack(f"{order}HHHQQ", 43, 8, 0, 16, len(tags))
    else:
        head = mark + struct.pack(f"{order}HIH", 42, 8, len(tags))
    for tag, (kind, count, value) in sorted(tags.items()):
        head += struct.pack(f"{order}HH{'Q' if is_big else 'I'}", tag, kind, count)
        head += value.ljust(room, b"\0")
    return head.ljust(at_bits, b"\0") + bits.ljust(20, b"\0") + formats.ljust(20, b"\0") + body


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


def refused_as_big_endian(data: bytes) -> None:
    """Pillow does not know BigTIFF of Motorola's byte order; nothing wrong may come of it."""
    with pytest.raises(CorruptImageError) as caught:
        open_image(data, reading=RANGE_12)
    print(caught.value)  # noqa: T201


@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "float32"])
def test_grey_tiff_shows_what_it_holds(dtype, photometric, order, deflated, is_big) -> None:
    values = noise(dtype, 29, 21)
    data = tiff(values, order=order, photometric=photometric, deflated=deflated, is_big=is_big)
    low, high = (-50.0, 4000.0)
    if is_big and order == ">":
        refused_as_big_endian(data)
        return
    if dtype == "uint32" and order == ">":
        with pytest.raises(CorruptImageError, match="32-bit unsigned samples"):
            open_image(data, reading=RANGE_12)
        return
    opened = open_image(data, reading=Reading(range=(low, high)))
    expected = shown(values, low, high)
    expected = 255 - expected if photometric == 0 else expected
    np.testing.assert_array_equal(np.asarray(opened.rgb), expected)
    assert levels_of(data).extent() == (values.min(), values.max())
    if dtype != "float32":
        info = np.iinfo(dtype)
        assert levels_of(data).full == (info.min, info.max)


@pytest.mark.parametrize("is_big", [False, True], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("deflated", [False, True], ids=["plain", "deflated"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [3, 4])
def test_colour_tiff_shows_what_it_holds(channels, order, deflated, is_big) -> None:
    values = noise("uint16", 29, 21, channels)
    more = {"tag338": 2} if channels == 4 else {}
    data = tiff(values, order=order, photometric=2, deflated=deflated, is_big=is_big, **more)
    if is_big and order == ">":
        refused_as_big_endian(data)
        return
    opened = open_image(data, reading=Reading(range=(300.0, 40_000.0)))
    expected = shown(values[:, :, :3], 300, 40_000).astype(float)
    if channels == 4:
        expected = 255 - (255 - expected) * (values[:, :, 3:] / 65_535)
    assert np.abs(np.asarray(opened.rgb) - expected).max() <= 0.5 + 1e-9


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
    buffer = io.BytesIO()
    Image.new("L", (5, 5), 77).save(buffer, "PNG")
    opened = open_image(buffer.getvalue(), reading=RANGE_12)
    assert (opened.rgb.getpixel((0, 0)), opened.outside) == ((77, 77, 77), 0)
    assert not is_deep(buffer.getvalue())
    assert levels_of(buffer.getvalue()) is None


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

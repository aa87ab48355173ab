"""The only door for pictures: what may enter, what it becomes, and what is refused."""

from __future__ import annotations

import functools
import io
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.images import MAX_FILE_BYTES, glance, open_image
from pipelines.data.preprocess import Preprocess
from pipelines.errors import CorruptImageError

RED, WHITE = (255, 0, 0), (255, 255, 255)


def picture(width_px: int = 40, height_px: int = 24, mode: str = "RGB") -> Image.Image:
    """Red above, white below: shows which way is up."""
    image = Image.new("RGB", (width_px, height_px), WHITE)
    image.paste(RED, (0, 0, width_px, height_px // 2))
    return image.convert(mode)


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def frames(form: str) -> bytes:
    second = Image.new("RGB", (40, 24), RED)
    return encode(picture(), form, save_all=True, append_images=[second], duration=100)


def png_header_only(side_px: int) -> bytes:
    return png_of(side_px, bit_depth=8, colour_type=2, pixels=zlib.compress(b""))


def png_of(side_px: int, *, bit_depth: int, colour_type: int, pixels: bytes) -> bytes:
    chunks = b""
    header = struct.pack(">IIBBBBB", side_px, side_px, bit_depth, colour_type, 0, 0, 0)
    for kind, body in ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        chunks += struct.pack(">I", len(body)) + kind + body + crc
    return b"\x89PNG\r\n\x1a\n" + chunks


@functools.cache
def real_bomb() -> bytes:
    """Black, one bit a pixel, 900 million pixels that are all there."""
    packer = zlib.compressobj(1)
    row = bytes(1 + 30_000 // 8)
    pixels = b"".join(packer.compress(row * 1_000) for _ in range(30)) + packer.flush()
    return png_of(30_000, bit_depth=1, colour_type=0, pixels=pixels)


@functools.cache
def scanned_bomb() -> bytes:
    """A progressive JPEG of 8,000 x 8,000 px that passes over all of them 200 times."""
    whole = encode(Image.new("L", (8_000, 8_000)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    assert whole.endswith(b"\xff\xd9")
    return whole[:-2] + whole[last:-2] * 200 + b"\xff\xd9"


def rescanned() -> bytes:
    """A JPEG that is not progressive, with its only scan ten times."""
    whole = encode(picture(), "JPEG")
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * 9 + whole[-2:]


#: Header of a sequential frame of 8,000 x 8,000 px, and of a scan that has all of its components.
SEQUENTIAL = bytes.fromhex("ffc0000b 08 1f40 1f40 01 011100 ffda0008 01 0100003f00")


def disguised(lie: bytes) -> bytes:
    """`scanned_bomb` with a lie behind its first two bytes."""
    bomb = scanned_bomb()
    return bomb[:2] + lie + bomb[2:]


@functools.cache
def deep_picture() -> bytes:
    """5,000 x 5,000 px of 32 bits; compressed, a hundred kilobytes."""
    return encode(Image.new("F", (5_000, 5_000)), "TIFF", compression="tiff_deflate")


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("no bytes", lambda: b"", "empty"),
    ("text", lambda: b"this is a letter, not a photograph", "not an image"),
    ("PDF", lambda: encode(picture(), "PDF"), "not an image"),
    ("truncated JPEG", lambda: encode(picture(400, 300), "JPEG")[:-600], "truncated"),
    ("truncated PNG", lambda: encode(picture(400, 300), "PNG")[:-60], "truncated"),
    ("truncated WebP", lambda: encode(picture(400, 300), "WEBP")[:-60], "truncated"),
    (
        "huge by its header",
        lambda: png_header_only(13_000),
        "FIELDLENS_MAX_PIXELS (now 64,000,000)",
    ),
    (
        "huge and real",
        real_bomb,
        "64,000,000 that are decoded, by the setting FIELDLENS_MAX_PIXELS",
    ),
    ("a little too large", lambda: png_header_only(6_400), "6,400 x 6,400"),
    ("JPEG of many scans", scanned_bomb, "scans"),
    ("many scans behind a note", lambda: disguised(b"\xff\xe1\x00\x19" + SEQUENTIAL), "scans"),
    (
        "many scans behind an empty note",
        lambda: disguised(b"\xff\xe0\x00\x00" + SEQUENTIAL),
        "scans",
    ),
    ("many scans behind a filled marker", lambda: disguised(b"\xff\xff\xe0\x00\x02"), "scans"),
    ("scans after the only one", rescanned, "damaged"),
    ("many scans in a second frame", lambda: disguised(SEQUENTIAL), "damaged"),
    ("32 bits a pixel", deep_picture, "FIELDLENS_MAX_PIXELS"),
    ("a line", lambda: encode(picture(1, 2_000), "PNG"), "image.max_aspect"),
    ("16-bit grey", lambda: grey16(4_095), "stored values 0..4095"),
    ("animated GIF", lambda: frames("GIF"), "more than one frame"),
    ("animated WebP", lambda: frames("WEBP"), "more than one frame"),
    ("animated PNG", lambda: frames("PNG"), "more than one frame"),
    ("TIFF of two pages", lambda: frames("TIFF"), "more than one frame"),
]


@pytest.mark.parametrize(
    ("make", "reason"), [row[1:] for row in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_bad_input_is_refused_in_one_line(make: Callable[[], bytes], reason: str) -> None:
    data = make()
    for door in (open_image, lambda data, name: glance(data, side_px=16, name=name)):
        with pytest.raises(CorruptImageError) as caught:
            door(data, name="fish.png")
        assert reason in caught.value.reason
        assert "\n" not in str(caught.value)
        assert "'fish.png'" in str(caught.value)


def test_bomb_fits_in_a_small_file() -> None:
    assert len(png_header_only(30_000)) < 1_000
    assert len(real_bomb()) < 600_000


def palette_with_transparency() -> bytes:
    image = Image.new("P", (40, 24), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 12, 40, 24))
    return encode(image, "PNG", transparency=1)


def grey16(peak: int) -> bytes:
    levels = np.zeros((24, 40), dtype=np.uint16)
    levels[:12] = peak
    return encode(Image.fromarray(levels), "PNG")


#: What it is, the bytes, the stored mode, and the colours above and below.
ACCEPTED = [
    ("JPEG", encode(picture(), "JPEG", quality=95), "RGB", RED, WHITE),
    ("progressive JPEG", encode(picture(), "JPEG", progressive=True), "RGB", RED, WHITE),
    ("CMYK JPEG", encode(picture(mode="CMYK"), "JPEG", quality=95), "CMYK", RED, WHITE),
    ("grey JPEG", encode(picture(mode="L"), "JPEG"), "L", (76, 76, 76), WHITE),
    ("PNG", encode(picture(), "PNG"), "RGB", RED, WHITE),
    ("palette", encode(picture(mode="P"), "PNG"), "P", RED, WHITE),
    ("palette with transparency", palette_with_transparency(), "P", RED, WHITE),
    ("one bit", encode(picture(mode="L").convert("1", dither=0), "PNG"), "1", (0, 0, 0), WHITE),
    ("transparent colour", encode(picture(), "PNG", transparency=RED), "RGB", WHITE, WHITE),
    ("grey with alpha", encode(picture(mode="LA"), "PNG"), "LA", (76, 76, 76), WHITE),
    ("clear", encode(Image.new("RGBA", (40, 24), (0, 0, 0, 0)), "PNG"), "RGBA", WHITE, WHITE),
    ("still GIF", encode(picture(), "GIF"), "P", RED, WHITE),
    ("WebP", encode(picture(), "WEBP", lossless=True), "RGB", RED, WHITE),
    ("BMP", encode(picture(), "BMP"), "RGB", RED, WHITE),
    ("TIFF", encode(picture(), "TIFF", compression="tiff_lzw"), "RGB", RED, WHITE),
    ("phone's MPO", frames("MPO"), "RGB", RED, WHITE),
    ("broken EXIF", encode(picture(), "PNG", exif=b"Exif\x00\x00garbage"), "RGB", RED, WHITE),
    ("one pixel", encode(Image.new("RGB", (1, 1), RED), "PNG"), "RGB", RED, RED),
]


@pytest.mark.parametrize(
    ("data", "mode", "above", "below"), [row[1:] for row in ACCEPTED], ids=[r[0] for r in ACCEPTED]
)
def test_odd_but_sound_input_becomes_rgb(
    data: bytes, mode: str, above: tuple[int, ...], below: tuple[int, ...]
) -> None:
    opened = open_image(data)
    assert (opened.mode, opened.n_bytes) == (mode, len(data))
    assert opened.rgb.mode == "RGB"
    x = opened.rgb.width // 2
    for y, colour in ((0, above), (opened.rgb.height - 1, below)):
        assert np.allclose(opened.rgb.getpixel((x, y)), colour, atol=12)
    seen = glance(data, side_px=8)
    expected = opened.rgb.convert("L").resize(seen.grey.size, Image.Resampling.BOX)
    assert seen.grey.mode == "L"
    assert np.allclose(np.asarray(seen.grey, int), np.asarray(expected, int), atol=12)
    assert (seen.mode, seen.width_px, seen.height_px) == (mode, opened.width_px, opened.height_px)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation_gives_an_upright_picture(orientation: int, form: str) -> None:
    upright = picture(200, 120)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    data = encode(stored, form, exif=exif(orientation))
    opened, seen = open_image(data), glance(data, side_px=16)
    assert opened.rgb.size == (200, 120)
    assert np.allclose(opened.rgb.getpixel((100, 10)), RED, atol=10)
    assert np.allclose(opened.rgb.getpixel((100, 110)), WHITE, atol=10)
    assert seen.grey.width > seen.grey.height
    assert seen.grey.getpixel((8, 1)) < 100 < seen.grey.getpixel((8, seen.grey.height - 2))
    # Pillow's TIFF decoder turns the picture itself and forgets that it did.
    for facts in (opened, seen) if form != "TIFF" else ():
        assert (facts.width_px, facts.height_px) == stored.size
        assert facts.is_exif_rotated == (orientation > 1)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_glance_finds_the_damage_that_open_image_finds(form: str) -> None:
    draw = random.Random(7)
    noise = np.random.default_rng(7).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    whole = encode(Image.fromarray(noise).resize((320, 240)), form)
    n_refused = 0
    for turn in range(40):
        damaged = bytearray(whole)
        if turn % 2:
            damaged = damaged[: draw.randrange(len(whole))]
        else:
            damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        verdicts = [is_refused(open_image, damaged), is_refused(small, damaged)]
        assert verdicts[0] == verdicts[1]
        assert verdicts[0] or turn % 2 == 0, "a truncated file was let in"
        n_refused += verdicts[0]
    assert n_refused >= 20


def small(data: bytes) -> object:
    return glance(data, side_px=32)


def is_refused(door: Callable[[bytes], object], data: bytearray) -> bool:
    try:
        door(bytes(data))
    except CorruptImageError:
        return True
    return False


@pytest.mark.parametrize(
    ("size", "side_px", "expected"),
    [((640, 480), 64, (80, 60)), ((64, 64), 64, (64, 64)), ((20, 300), 64, (20, 300))],
)
def test_glance_is_small_but_not_smaller_than_asked(
    size: tuple[int, int], side_px: int, expected: tuple[int, int]
) -> None:
    for form in ("JPEG", "PNG"):
        grey = glance(encode(picture(*size), form), side_px=side_px).grey
        assert min(grey.size) >= min(side_px, *size)
        assert grey.width <= 2 * expected[0]


def test_file_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "sparse.png"
    with file.open("wb") as stream:
        stream.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(CorruptImageError, match="100,000,001 bytes"):
        open_image(file)


def test_symlink_loop_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    with pytest.raises(CorruptImageError, match="symbolic links"):
        open_image(tmp_path / "a.png")


def test_named_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(CorruptImageError, match="not a regular file"):
        open_image(tmp_path / "pipe.png")


def test_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptImageError, match="not a regular file"):
        open_image(tmp_path)


@pytest.mark.parametrize("name", ["naïve 鯉.png", "two\nlines.png", "tab\tquote'.png"])
def test_odd_name_is_read_and_stays_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(encode(picture(), "PNG"))
    assert open_image(file).rgb.size == (40, 24)
    file.write_bytes(b"x")
    with pytest.raises(CorruptImageError) as caught:
        open_image(file)
    assert "\n" not in str(caught.value)


def test_forbidden_file_is_refused(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to drop the rights to a file")
    program = (
        "import os, sys; from pathlib import Path; from pipelines.data.images import open_image;"
        "from pipelines.errors import CorruptImageError\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: open_image(Path('secret.png'))\n"
        "except CorruptImageError as err: print(err.reason)\n"
    )
    file = tmp_path / "secret.png"
    file.write_bytes(encode(picture(), "PNG"))
    file.chmod(0o600)
    # The working directory is entered before the rights are dropped: its parents may be closed.
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n" + program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert done.stdout.strip() == "cannot be read (Permission denied)"


def test_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same():
    rng = np.random.default_rng(3)
    small = rng.integers(40, 216, size=(30, 40, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((2000, 1500), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, exif=exif)
    full = open_image(buffer.getvalue())
    some = open_image(buffer.getvalue(), least_side_px=512)
    assert full.rgb.size == (1500, 2000)
    assert some.rgb.size == (750, 1000)
    assert (some.width_px, some.height_px) == (2000, 1500)
    preprocess = Preprocess(256, 224)
    difference = np.abs(preprocess(full.rgb).astype(int) - preprocess(some.rgb))
    assert difference.mean() < 0.6
    assert difference.max() <= 6


@pytest.mark.parametrize(("format_", "side_px"), [("PNG", 2000), ("JPEG", 1000)])
def test_other_pictures_are_decoded_fully(format_, side_px):
    buffer = io.BytesIO()
    Image.new("RGB", (side_px, side_px), "teal").save(buffer, format_)
    assert open_image(buffer.getvalue(), least_side_px=512).rgb.size == (side_px, side_px)

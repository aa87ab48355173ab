"""The only door for pictures: what may enter, what it becomes, and what is refused."""

from __future__ import annotations

import functools
import io
import os
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from pipelines.data import images
from pipelines.data.images import MAX_FILE_BYTES, file_header, glance, open_image
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess
from pipelines.data.tree import EXTRAS, extra_format_of, missing_extra, missing_extra_of_many
from pipelines.errors import CorruptImageError
from tests.image_files import (
    RED,
    WHITE,
    deflated,
    deflated_png,
    encode,
    frames,
    ihdr,
    picture,
    progressive,
    stored,
)

pillow_heif.register_heif_opener()


# -- what is refused ------------------------------------------------------------------------------
def png_header_only(side_px: int) -> bytes:
    return deflated_png(ihdr(side_px, side_px), zlib.compress(b""))


def real_bomb() -> bytes:
    """Black, one bit a pixel, 900 million pixels that are all there."""
    data = deflated_png(ihdr(30_000, 30_000, 1, 0), deflated(bytes(1 + 30_000 // 8), 30_000))
    assert len(data) < 600_000
    return data


scanned_bomb = functools.cache(functools.partial(progressive, 8_000, 200))


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


def grey16(peak: int) -> bytes:
    levels = np.zeros((24, 40), dtype=np.uint16)
    levels[:12] = peak
    return encode(Image.fromarray(levels), "PNG")


MANY_PIXELS = "64,000,000 that are decoded, by the setting FIELDLENS_MAX_PIXELS"
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "no bytes": (lambda: b"", "empty"),
    "text": (lambda: b"this is a letter, not a photograph", "not an image"),
    "PDF": (lambda: encode(picture(), "PDF"), "not an image"),
    "truncated JPEG": (lambda: encode(picture(400, 300), "JPEG")[:-600], "truncated"),
    "truncated PNG": (lambda: encode(picture(400, 300), "PNG")[:-60], "truncated"),
    "truncated WebP": (lambda: encode(picture(400, 300), "WEBP")[:-60], "truncated"),
    "head of a HEIC": (
        lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400),
        "damaged or truncated HEIC",
    ),
    "huge by its header": (
        lambda: png_header_only(13_000),
        "FIELDLENS_MAX_PIXELS (now 64,000,000)",
    ),
    "huge and real": (real_bomb, MANY_PIXELS),
    "a little too large": (lambda: png_header_only(6_400), "6,400 x 6,400"),
    "JPEG of many scans": (scanned_bomb, "scans"),
    "many scans behind a note": (lambda: disguised(b"\xff\xe1\x00\x19" + SEQUENTIAL), "scans"),
    "many scans behind an empty note": (
        lambda: disguised(b"\xff\xe0\x00\x00" + SEQUENTIAL),
        "scans",
    ),
    "many scans behind a filled marker": (lambda: disguised(b"\xff\xff\xe0\x00\x02"), "scans"),
    "scans after the only one": (rescanned, "damaged"),
    "many scans in a second frame": (lambda: disguised(SEQUENTIAL), "damaged"),
    "32 bits a pixel": (deep_picture, "FIELDLENS_MAX_PIXELS"),
    "a line": (lambda: encode(picture(1, 2_000), "PNG"), "image.max_aspect"),
    "16-bit grey": (lambda: grey16(4_095), "stored values 0..4095"),
    "animated GIF": (lambda: frames("GIF"), "more than one frame"),
    "animated WebP": (lambda: frames("WEBP"), "more than one frame"),
    "animated PNG": (lambda: frames("PNG"), "more than one frame"),
    "animated AVIF": (lambda: frames("AVIF"), "more than one frame"),
    "TIFF of two pages": (lambda: frames("TIFF"), "more than one frame"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(case: str) -> None:
    make, reason = REFUSED[case]
    data = make()
    for door in (open_image, lambda data, name: glance(data, side_px=16, name=name)):
        with pytest.raises(CorruptImageError) as caught:
            door(data, name="fish.png")
        assert reason in caught.value.reason
        assert "\n" not in str(caught.value)
        assert "'fish.png'" in str(caught.value)


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
        doors = (open_image, functools.partial(glance, side_px=32))
        verdicts = [is_refused(door, bytes(damaged)) for door in doors]
        assert verdicts[0] == verdicts[1]
        assert verdicts[0] or turn % 2 == 0, "a truncated file was let in"
        n_refused += verdicts[0]
    assert n_refused >= 20


def is_refused(door: Callable[[bytes], object], data: bytes) -> bool:
    try:
        door(data)
    except CorruptImageError:
        return True
    return False


def sparse(file: Path) -> None:
    file.touch()
    os.truncate(file, MAX_FILE_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (sparse, "100,000,001 bytes"),
        (os.mkfifo, "not a regular file"),
        (Path.mkdir, "not a regular file"),
        (lambda file: file.symlink_to(file), "symbolic links"),
    ],
    ids=["too large", "named pipe", "folder", "link to itself"],
)
def test_what_is_no_ordinary_file_is_refused_before_it_is_read(make, reason, tmp_path) -> None:
    make(tmp_path / "a.png")
    with pytest.raises(CorruptImageError, match=reason):
        open_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["naïve 鯉.png", "two\nlines.png", "tab\tquote'.png"])
def test_odd_name_is_read_and_stays_one_line(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(encode(picture(), "PNG"))
    assert open_image(file).rgb.size == (40, 24)
    file.write_bytes(b"x")
    with pytest.raises(CorruptImageError) as caught:
        open_image(file)
    assert "\n" not in str(caught.value)


def test_forbidden_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "secret.png").write_bytes(encode(picture(), "PNG"))
    (tmp_path / "secret.png").chmod(0o000)
    # Entered before root gives up its rights: the parents of a test's folder may be closed.
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    is_root = os.geteuid() == 0
    try:
        if is_root:
            os.seteuid(65_534)
        with pytest.raises(CorruptImageError, match=r"cannot be read \(Permission denied\)"):
            open_image(Path("secret.png"))
    finally:
        if is_root:
            os.seteuid(0)


# -- what becomes of the rest ---------------------------------------------------------------------
def palette_with_transparency() -> bytes:
    image = Image.new("P", (40, 24), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (0, 12, 40, 24))
    return encode(image, "PNG", transparency=1)


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


@pytest.mark.parametrize("form", ["HEIF", "AVIF", "JPEG2000"])
def test_format_is_told_by_content(form, tmp_path) -> None:
    file = tmp_path / "IMG_0001.jpg"
    file.write_bytes(encode(picture(96, 64), form))
    opened, seen, header = open_image(file), glance(file, side_px=16), file_header(file, "a")
    assert (opened.format, seen.format, header.format) == (form, form, form)
    assert opened.rgb.size == header.size == (96, 64)
    assert np.allclose(opened.rgb.getpixel((48, 4)), RED, atol=12)
    assert np.allclose(opened.rgb.getpixel((48, 60)), WHITE, atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_exif_rotation_gives_an_upright_picture_once(orientation: int, form: str) -> None:
    lying, exif = stored(picture(200, 120), orientation)
    # Of which the encoders of HEIF and AVIF make the container's own rotation.
    lying.getexif()[0x0112] = orientation
    data = encode(lying, form, **({} if form == "HEIF" else {"exif": exif}))
    opened, seen = open_image(data), glance(data, side_px=16)
    assert opened.rgb.size == (200, 120)
    assert np.allclose(opened.rgb.getpixel((100, 10)), RED, atol=12)
    assert np.allclose(opened.rgb.getpixel((100, 110)), WHITE, atol=12)
    assert seen.grey.width > seen.grey.height
    assert seen.grey.getpixel((8, 1)) < 100 < seen.grey.getpixel((8, seen.grey.height - 2))
    # The other decoders turn the picture themselves and forget that they did.
    for facts in (opened, seen) if form in {"JPEG", "PNG", "WEBP"} else ():
        assert (facts.width_px, facts.height_px) == lying.size
        assert facts.is_exif_rotated == (orientation > 1)


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


def test_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same() -> None:
    patches = np.random.default_rng(3).integers(40, 216, size=(30, 40, 3), dtype=np.uint8)
    scene = Image.fromarray(patches).resize((1500, 2000), Image.Resampling.BICUBIC)
    lying, exif = stored(scene, 6)
    data = encode(lying, "JPEG", quality=92, exif=exif)
    full, some = open_image(data), open_image(data, least_side_px=512)
    assert full.rgb.size == (1500, 2000)
    assert some.rgb.size == (750, 1000)
    assert (some.width_px, some.height_px) == (2000, 1500)
    preprocess = Preprocess(256, 224)
    difference = np.abs(preprocess(full.rgb).astype(int) - preprocess(some.rgb))
    assert difference.mean() < 0.6
    assert difference.max() <= 6


@pytest.mark.parametrize(("form", "side_px"), [("PNG", 2000), ("JPEG", 1000)])
def test_other_pictures_are_decoded_fully(form, side_px) -> None:
    data = encode(Image.new("RGB", (side_px, side_px), "teal"), form)
    assert open_image(data, least_side_px=512).rgb.size == (side_px, side_px)


def test_of_several_pictures_the_primary_is_read() -> None:
    heif = pillow_heif.from_pillow(Image.new("RGB", (64, 64), "white"))
    heif.add_from_pillow(picture(96, 64))
    buffer = io.BytesIO()
    heif.save(buffer, primary_index=1)
    assert open_image(buffer.getvalue()).rgb.size == (96, 64)


def test_the_photo_is_read_and_never_its_thumbnail() -> None:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture(512, 512)).save(buffer, thumbnails=[128])
    assert glance(buffer.getvalue(), side_px=64).grey.size == (64, 64)
    assert open_image(buffer.getvalue(), least_side_px=64).rgb.size == (512, 512)


def test_ten_bits_of_heic_are_eight_as_libheif_has_it() -> None:
    levels = (np.asarray(picture(96, 64)).astype(np.uint16) << 8).tobytes()
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (96, 64), levels).save(buffer)
    assert pillow_heif.open_heif(buffer, convert_hdr_to_8bit=False).info["bit_depth"] == 10
    opened = open_image(buffer.getvalue())
    assert opened.mode == "RGB"
    assert np.allclose(opened.rgb.getpixel((48, 4)), RED, atol=12)


def test_a_deep_jpeg_2000_goes_by_the_range() -> None:
    deep = np.tile(np.arange(0, 65_536, 1024, dtype=np.uint16), (32, 1))
    data = encode(Image.fromarray(deep), "JPEG2000")
    with pytest.raises(CorruptImageError, match=r"image\.range"):
        open_image(data)
    shown = np.asarray(open_image(data, reading=Reading(range=(0, 32_768))).rgb)[0, :, 0]
    assert np.abs(shown - np.rint(deep[0].clip(0, 32_768) / 32_768 * 255)).max() <= 1


# -- formats that need an extra -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("head", "form"),
    [
        (b"\0" * 128 + b"DICM", "DICOM"),
        (b"\xff\xd8\xff" + b"\0" * 125 + b"DICM", "DICOM"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", None),
        (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", None),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp41", None),
        (b"", None),
    ],
)
def test_formats_that_need_an_extra_are_told_by_content(head, form) -> None:
    assert extra_format_of(head) == form


def test_the_line_counts_and_says_what_to_install() -> None:
    reason = missing_extra("HEIC")
    assert missing_extra_of_many(8, "blight", reason) == (
        "8 files of blight are HEIC; pip install 'fieldlens[heic]'"
    )
    assert missing_extra_of_many(1, "rust", missing_extra("DICOM")) == (
        "1 file of rust is DICOM; pip install 'fieldlens[dicom]'"
    )
    assert missing_extra_of_many(1, "rust", "the file is empty") is None


def test_extras_are_those_of_the_package() -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    for extra in EXTRAS.values():
        assert f"\n{extra} = [" in text


def test_without_the_extra_every_door_says_so(monkeypatch) -> None:
    data = encode(picture(), "HEIF")
    images._register_heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for door in (open_image, functools.partial(glance, side_px=9), file_header):
        with pytest.raises(CorruptImageError) as caught:
            door(data, name="a")
        assert caught.value.reason == missing_extra("HEIC")

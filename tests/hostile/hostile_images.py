"""Pictures that no camera made: broken, lying and greedy ones, of every format that may enter."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from tests.hostile import changes
from tests.hostile.changes import Named, patched
from tests.image_files import deflated, deflated_png, encode, ihdr, png, progressive

#: What a header may claim of a size.
_SIZES = (0, 1, 7, 30_000, 65_535, 2**31 - 1, 2**32 - 1)


def picture(mode: str = "RGB", noise: float = 6) -> Image.Image:
    draw = np.random.default_rng(4)
    patches = np.kron(draw.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1)))
    pixels = np.clip(patches + draw.normal(0, noise, patches.shape), 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(image.size))
        return image
    return image.convert(mode)


def exif_block() -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112], tags[0x010F], tags[0x9286] = 6, "maker", "comment" * 20
    return tags


def sound() -> dict[str, bytes]:
    """One sound file of every kind of every format; all else is made from them."""
    rgb, profile = picture(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngInfo()
    text.add_text("comment", "x" * 50, zip=True)

    def two(form: str) -> bytes:
        # Saving leaves marks in the picture that is appended.
        return encode(rgb, form, save_all=True, append_images=[picture("L").convert("RGB")])

    return {
        "baseline.jpg": encode(rgb, "JPEG", exif=exif_block(), icc_profile=profile),
        "progressive.jpg": encode(rgb, "JPEG", progressive=True, quality=60),
        "grey.jpg": encode(picture("L"), "JPEG"),
        "cmyk.jpg": encode(picture("CMYK"), "JPEG"),
        "two.mpo": two("MPO"),
        "rgb.png": encode(rgb, "PNG", pnginfo=text, icc_profile=profile, exif=exif_block()),
        "palette.png": encode(picture("P"), "PNG", transparency=3),
        "alpha.png": encode(picture("RGBA"), "PNG"),
        "grey16.png": encode(picture("I;16"), "PNG"),
        "bit.png": encode(picture("1"), "PNG"),
        "animated.png": two("PNG"),
        "lossy.webp": encode(rgb, "WEBP", exif=exif_block(), icc_profile=profile),
        "lossless.webp": encode(picture("RGBA"), "WEBP", lossless=True),
        "animated.webp": two("WEBP"),
        "rgb.bmp": encode(rgb, "BMP"),
        "palette.bmp": encode(picture("P"), "BMP"),
        "plain.tif": encode(rgb, "TIFF", exif=exif_block()),
        "lzw.tif": encode(rgb, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encode(picture("I;16"), "TIFF", compression="tiff_adobe_deflate"),
        "jpeg.tif": encode(rgb, "TIFF", compression="jpeg"),
        "fax.tif": encode(picture("1"), "TIFF", compression="group4"),
        "packbits.tif": encode(picture("RGBA"), "TIFF", compression="packbits"),
        "float.tif": encode(picture("F"), "TIFF"),
        "two_pages.tif": two("TIFF"),
        "still.gif": encode(picture("P"), "GIF"),
        "animated.gif": two("GIF"),
    }


# -- the parts of a file --------------------------------------------------------------------------
def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def jpeg_markers(data: bytes) -> list[int]:
    """Where segments begin; entropy-coded data hold no such byte pairs but RSTn."""
    return [found.start() for found in re.finditer(rb"\xff[^\x00\xd0-\xd7\xff]", data)]


def cuts(name: str, data: bytes) -> list[int]:
    """Where chunks, segments or blocks of a file begin."""
    if name.endswith(".png"):
        places, at = [8], 8
        for _, body in png_chunks(data):
            at += 12 + len(body)
            places.append(at)
        return places
    if name.endswith((".jpg", ".mpo")):
        return jpeg_markers(data)
    if name.endswith(".webp"):
        places, at = [12], 12
        while at + 8 <= len(data):
            at += 8 + (struct.unpack("<I", data[at + 4 : at + 8])[0] + 1) // 2 * 2
            places.append(at)
        return places
    return [2, 4, 8, 14, 26, 54, len(data) // 4, len(data) // 2, len(data) - 1]


# -- kinds of attack ------------------------------------------------------------------------------
def truncated() -> Named:
    for name, data in sound().items():
        for place in sorted({at for at in cuts(name, data) if 0 < at < len(data)})[:14]:
            yield f"cut/{place}-{name}", data[:place]
            yield f"cut/{place + 1}-{name}", data[: place + 1]


def flipped() -> Named:
    for name, data in sound().items():
        draw = np.random.default_rng([5, len(data)])
        for number in range(6):
            # Headers are a small part of a file, and the most delicate.
            reach = 160 if number % 2 else len(data)
            yield f"flip/{number}-{name}", changes.flipped(data, draw, 1 + number, reach)


def lying_sizes() -> Named:
    files = sound()
    _, *chunks = png_chunks(files["rgb.png"])

    def with_header(header: bytes) -> bytes:
        return png((b"IHDR", header), *chunks)

    for size in _SIZES:
        for width, height in ((size, 48), (64, size), (size, size)):
            yield f"size/{width}x{height}.png", with_header(ihdr(width, height))
            bmp = patched(files["rgb.bmp"], 18, "<II", width, height)
            yield f"size/{width}x{height}.bmp", bmp
            short = (min(width, 65_535), min(height, 65_535))
            yield f"size/{width}x{height}.gif", patched(files["still.gif"], 6, "<HH", *short)
            jpeg = files["baseline.jpg"]
            at = jpeg.index(b"\xff\xc0") + 5
            yield f"size/{width}x{height}.jpg", patched(jpeg, at, ">HH", *reversed(short))
    for depth, colour, lace in ((16, 6, 1), (1, 2, 0), (7, 9, 9), (8, 3, 1), (255, 255, 255)):
        header = ihdr(64, 48, depth, colour, lace)
        yield f"size/kind-{depth}-{colour}-{lace}.png", with_header(header)


def tiff_tags() -> Named:
    """Each tag in turn with a value that cannot be."""
    for name in ("plain.tif", "lzw.tif", "jpeg.tif", "deflate.tif"):
        data = sound()[name]
        start = struct.unpack("<I", data[4:8])[0]
        (n_tags,) = struct.unpack("<H", data[start : start + 2])
        for number in range(n_tags):
            at = start + 2 + 12 * number
            tag = struct.unpack("<H", data[at : at + 2])[0]
            for value in (0, 2**16 - 1, 2**31 - 1, 2**32 - 1)[number % 2 :: 2]:
                for field, form in ((4, "count"), (8, "value")):
                    made = patched(data, at + field, "<I", value)
                    yield f"tag/{tag}-{form}-{value}-{name}", made
        yield f"tag/loop-{name}", patched(data, start + 2 + 12 * n_tags, "<I", start)


def zeros_png(width: int, height: int, depth: int, colour: int, row_bytes: int) -> bytes:
    palette = [(b"PLTE", bytes(3))] * (colour == 3)
    pixels = deflated(bytes(1 + row_bytes), height)
    return deflated_png(ihdr(width, height, depth, colour), pixels, *palette)


def bombs() -> Named:
    """Small files that ask for much work; the largest that are let in are among them."""
    yield "bomb/30000x30000.png", zeros_png(30_000, 30_000, 1, 0, 3_750)
    yield "bomb/64MP-rgb.png", zeros_png(8_000, 8_000, 8, 2, 24_000)
    yield "bomb/64MP-alpha.png", zeros_png(8_000, 8_000, 8, 6, 32_000)
    yield "bomb/64MP-alpha16.png", zeros_png(8_000, 8_000, 16, 6, 64_000)
    yield "bomb/64MP-grey16.png", zeros_png(8_000, 8_000, 16, 0, 16_000)
    yield "bomb/64MP-palette.png", zeros_png(8_000, 8_000, 8, 3, 8_000)
    yield "bomb/wide.png", zeros_png(64_000_000, 1, 8, 0, 64_000_000)
    yield "bomb/high.png", zeros_png(1, 64_000_000, 8, 0, 1)
    yield "bomb/scans-100.jpg", progressive(8_000, 100)
    yield "bomb/scans-2000.jpg", progressive(1_000, 2_000)
    yield "bomb/scans-14.jpg", progressive(8_000, 14)
    blank = Image.new("RGB", (8_000, 8_000))
    yield "bomb/16MP.webp", encode(Image.new("RGB", (4_000, 4_000)), "WEBP", method=0)
    yield "bomb/64MP.jpg", encode(blank, "JPEG")
    yield "bomb/64MP-deflate.tif", encode(blank, "TIFF", compression="tiff_adobe_deflate")
    floats = Image.new("F", (8_000, 8_000))
    yield "bomb/64MP-float.tif", encode(floats, "TIFF", compression="tiff_adobe_deflate")
    gif = sound()["animated.gif"]
    frame = gif[gif.rindex(b"\x21\xf9") : -1]
    yield "bomb/frames.gif", gif[:-1] + frame * (3_000_000 // len(frame)) + gif[-1:]
    tif = encode(Image.new("L", (1, 1)), "TIFF")
    start = struct.unpack("<I", tif[4:8])[0]
    directory, pages = tif[start:], bytearray(tif[:start])
    size = len(directory)
    for number in range(20_000):
        pages += directory[: size - 4] + struct.pack("<I", start + (number + 1) * size)
    yield "bomb/pages.tif", bytes(pages)


def metadata() -> Named:
    header, *rest = png_chunks(encode(picture(), "PNG"))
    squeezed = zlib.compress(bytes(100_000_000), 1)
    for name, chunks in {
        "iccp-bomb": [(b"iCCP", b"p\0\0" + squeezed)],
        "ztxt-bomb": [(b"zTXt", b"k\0\0" + squeezed)],
        "itxt-bomb": [(b"iTXt", b"k\0\1\0\0\0" + squeezed)],
        "texts": [(b"tEXt", b"k\0v")] * 200_000,
        "large-text": [(b"tEXt", b"k\0" + b"x" * 5_000_000)],
        "many-idat": [(b"IDAT", b"")] * 200_000,
    }.items():
        yield f"meta/{name}.png", png(header, *chunks, *rest)
    jpeg = encode(picture(), "JPEG")

    def with_segments(marker: bytes, body: bytes, n: int = 1) -> bytes:
        return jpeg[:2] + (marker + struct.pack(">H", len(body) + 2) + body) * n + jpeg[2:]

    draw = np.random.default_rng(6)
    for number in range(24):
        junk = draw.bytes(int(draw.integers(1, 3000)))
        exif = b"Exif\0\0" + (b"II*\0", b"MM\0*")[number % 2]
        body = (exif, b"ICC_PROFILE\0\1\1", b"http://ns.adobe.com/")[number % 3] + junk
        marker = (b"\xff\xe1", b"\xff\xe2", b"\xff\xe1")[number % 3]
        yield f"meta/junk-{number}.jpg", with_segments(marker, body)
        yield f"meta/junk-{number}.png", encode(picture(), "PNG", exif=body)
        yield f"meta/junk-{number}.webp", encode(picture(), "WEBP", exif=body, icc_profile=junk)
    yield "meta/segments.jpg", with_segments(b"\xff\xe1", b"Exif\0\0" + bytes(65_527), 100)
    # An EXIF directory of 5,000 tags that all point to the directory itself.
    entry = struct.pack("<HHII", 0x8769, 4, 1, 8)
    loop = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 5_000) + entry * 5_000 + bytes(4)
    yield "meta/exif-loop.jpg", with_segments(b"\xff\xe1", loop)


def strangers() -> Named:
    """Formats that are not let in, under names that are; and two formats in one file."""
    forms = ("PDF", "EPS", "PPM", "TGA", "ICO", "ICNS", "PCX", "SGI", "DDS", "IM", "JPEG2000")
    for form in (*forms, "XBM"):
        small = picture("1" if form == "XBM" else "RGB").resize((64, 64))
        yield f"stranger/{form}.jpg", encode(small, form)
    yield "stranger/fits.jpg", b"SIMPLE  =                    T".ljust(2880)
    yield "stranger/svg.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    yield "stranger/html.gif", b"<html><script>alert(1)</script>"
    yield "stranger/script.gif", b"GIF89a=1;alert(1)//" + bytes(40)
    yield "stranger/ps.tif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run"
    yield "stranger/psd.bmp", b"8BPS\0\1" + bytes(60)
    yield "stranger/elf.png", b"\x7fELF" + bytes(60)
    yield "stranger/wmf.bmp", b"\xd7\xcd\xc6\x9a" + bytes(60)
    yield "stranger/pickle.png", b"\x80\x04cos\nsystem\n(S'true'\ntR."
    for name, data in list(sound().items())[:8]:
        yield f"stranger/zip-behind-{name}", data + b"PK\x05\x06" + bytes(18)
        yield f"stranger/png-behind-{name}", data + sound()["rgb.png"]
        yield f"stranger/script-before-{name}", b"#!/bin/sh\n" + data


def quick() -> Named:
    """All that is small: the fast part."""
    yield from ((f"sound/{name}", data) for name, data in sound().items())
    for kind in (truncated, flipped, lying_sizes, tiff_tags, strangers):
        yield from kind()


def slow() -> Named:
    """Bombs and large metadata."""
    yield from bombs()
    yield from metadata()

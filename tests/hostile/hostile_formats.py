"""Broken, lying and greedy files of the formats beyond the usual: DICOM, HEIC, AVIF, JPEG 2000."""

from __future__ import annotations

import functools
import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests import dicom_files as dcm
from tests.hostile import changes
from tests.hostile import hostile_images as images
from tests.hostile.changes import Named, patched
from tests.image_files import encode

#: What a field of four or two bytes may claim.
_NUMBERS = (0, 1, 2, 255, 30_000, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


picture = functools.partial(images.picture, noise=0)


def grey12() -> np.ndarray:
    return np.asarray(picture("L")).astype(np.uint16) << 4


# -- sound files ----------------------------------------------------------------------------------
@functools.cache
def sound_dicom() -> dict[str, bytes]:
    grey, deep, rgb = np.asarray(picture("L")), grey12(), np.asarray(picture())
    window = {"WindowCenter": [2048, 100], "WindowWidth": [4096, 50]}
    ybr = np.asarray(picture().convert("YCbCr"))
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [256, 0, 16], struct.pack("<256H", *range(0, 65_536, 256))
    colours = [struct.pack("<256H", *range(start, start + 65_280, 255)) for start in (0, 90, 255)]
    palette = {}
    for colour, data in zip(("Red", "Green", "Blue"), colours, strict=True):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{colour}PaletteColorLookupTableData"] = data
    return {
        "explicit.dcm": dcm.dicom(deep, **window),
        "implicit.dcm": dcm.dicom(deep, syntax=ImplicitVRLittleEndian, **window),
        "big.dcm": dcm.dicom(deep, syntax=ExplicitVRBigEndian, **window),
        "deflated.dcm": dcm.dicom(deep, syntax=DeflatedExplicitVRLittleEndian, **window),
        "signed.dcm": dcm.dicom(
            deep.astype(np.int16) - 1024, 16, RescaleSlope=1, RescaleIntercept=-24, **window
        ),
        "inverted.dcm": dcm.dicom(grey, 8, "MONOCHROME1"),
        "lut.dcm": dcm.dicom(grey, 8, ModalityLUTSequence=Sequence([lut]), **window),
        "voi.dcm": dcm.dicom(grey, 8, VOILUTSequence=Sequence([lut])),
        "sigmoid.dcm": dcm.dicom(deep, VOILUTFunction="SIGMOID", **window),
        "rgb.dcm": dcm.dicom(rgb, 8, "RGB"),
        "planes.dcm": dcm.dicom(rgb, 8, "RGB", PlanarConfiguration=1),
        "ybr.dcm": dcm.dicom(ybr, 8, "YBR_FULL"),
        "palette.dcm": dcm.dicom(grey, 8, "PALETTE COLOR", **palette),
        "rle.dcm": dcm.dicom(deep, syntax=RLELossless, **window),
        "rle-rgb.dcm": dcm.dicom(rgb, 8, "RGB", RLELossless),
        "ls.dcm": dcm.dicom(deep, syntax=JPEGLSLossless, **window),
        "jpeg.dcm": dcm.in_jpeg(grey, "MONOCHROME2"),
        "jpeg-rgb.dcm": dcm.in_jpeg(rgb, "YBR_FULL_422"),
        "jpeg2000.dcm": dcm.in_jpeg2000(deep, 16, "MONOCHROME2", **window),
        "jpeg2000-rgb.dcm": dcm.in_jpeg2000(rgb, 8, "YBR_RCT"),
    }


@functools.cache
def sound_heic() -> dict[str, bytes]:
    pillow_heif.register_heif_opener()
    rgb, alpha = picture(), picture("RGBA")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    heif = pillow_heif.from_pillow(rgb)
    heif.add_from_pillow(picture("L").convert("RGB"))
    two = io.BytesIO()
    heif.save(two, primary_index=1, quality=50)
    deep = pillow_heif.from_bytes(
        "RGB;16", rgb.size, (np.asarray(rgb).astype(np.uint16) << 8).tobytes()
    )
    ten = io.BytesIO()
    deep.save(ten, quality=50)
    return {
        "rgb.heic": encode(rgb, "HEIF", quality=50),
        "lossless.heic": encode(rgb, "HEIF", quality=-1, chroma=444),
        "rotated.heic": encode(rgb, "HEIF", quality=50, exif=exif),
        "alpha.heic": encode(alpha, "HEIF", quality=50),
        "two.heic": two.getvalue(),
        "ten.heic": ten.getvalue(),
        "grid.heic": encode(rgb.resize((192, 144)), "HEIF", quality=50, grid_tile_size=64),
    }


@functools.cache
def sound_avif() -> dict[str, bytes]:
    rgb, exif = picture(), Image.Exif()
    exif[0x0112] = 6
    return {
        "rgb.avif": encode(rgb, "AVIF"),
        "lossless.avif": encode(rgb, "AVIF", quality=100, subsampling="4:4:4"),
        "alpha.avif": encode(picture("RGBA"), "AVIF"),
        "grey.avif": encode(picture("L"), "AVIF"),
        "rotated.avif": encode(rgb, "AVIF", exif=exif),
        "animated.avif": encode(
            rgb, "AVIF", save_all=True, append_images=[picture("L").convert("RGB")]
        ),
    }


@functools.cache
def sound_jpeg2000() -> dict[str, bytes]:
    rgb = picture()
    return {
        "rgb.jp2": encode(rgb, "JPEG2000"),
        "lossy.jp2": encode(rgb, "JPEG2000", quality_layers=[20, 5], irreversible=True),
        "stream.j2k": encode(rgb, "JPEG2000", no_jp2=True),
        "alpha.jp2": encode(picture("RGBA"), "JPEG2000"),
        "tiles.jp2": encode(rgb, "JPEG2000", tile_size=(16, 16)),
        "grey16.jp2": encode(Image.fromarray(grey12()), "JPEG2000"),
        "palette.jp2": encode(picture("L"), "JPEG2000"),
    }


def sound() -> dict[str, bytes]:
    return sound_dicom() | sound_heic() | sound_avif() | sound_jpeg2000()


# -- kinds of attack ------------------------------------------------------------------------------
def truncated() -> Named:
    for name, data in sound().items():
        for part in (*range(1, 12), *(4, 12, 16, 40, 100, 133)):
            place = len(data) * part // 12 if part < 12 else part
            yield f"cut/{part}-{name}", data[:place]
        yield f"cut/last-{name}", data[:-1]


def flipped() -> Named:
    for name, data in sound().items():
        draw = np.random.default_rng([5, len(data)])
        for number in range(12):
            reach = 600 if number % 2 else len(data)
            yield f"flip/{number}-{name}", changes.flipped(data, draw, 1 + number, reach)


def lying_boxes() -> Named:
    """ISO base media and JPEG 2000 files: sizes of boxes and of the picture that cannot be."""
    fields = {b"ispe": (8, 12), b"ihdr": (4, 8, 12, 14), b"meta": (-4,), b"iloc": (-4, 8, 12)}
    fields |= {b"iinf": (-4, 8), b"ipma": (-4, 8), b"hvcC": (-4, 4, 8), b"av1C": (-4, 4)}
    fields |= {b"grid": (0,), b"mdat": (-4,), b"jp2h": (-4,), b"jp2c": (-4,), b"pitm": (8,)}
    fields |= {b"\xff\x4f\xff\x51": (8, 12, 16, 20, 24, 28, 32, 36, 40), b"\xff\x52": (4, 6, 9)}
    for name, data in (sound_heic() | sound_avif() | sound_jpeg2000()).items():
        for box, offsets in fields.items():
            at = data.find(box)
            for offset in offsets if at >= 0 else ():
                for number in _NUMBERS:
                    made = patched(data, at + offset, ">I", number)
                    yield f"box/{box!r}{offset}-{number}-{name}", made


def lying_elements() -> Named:
    """DICOM elements of the image pixel module with values that cannot be."""
    for name in ("explicit.dcm", "rle.dcm", "ls.dcm", "jpeg.dcm", "jpeg2000.dcm", "palette.dcm"):
        data = sound_dicom()[name]
        for element in (0x02, 0x10, 0x11, 0x100, 0x101, 0x102, 0x103):
            at = data.find(struct.pack("<HH", 0x28, element) + b"US")
            for number in (0, 1, 2, 3, 7, 8, 13, 16, 17, 32, 64, 255, 65_535):
                yield f"element/{element:x}-{number}-{name}", patched(data, at + 8, "<H", number)
        at = data.find(b"\xe0\x7f\x10\x00")
        for number in (0, 1, 2**31, 2**32 - 2, 2**32 - 1):
            yield f"element/pixels-{number}-{name}", patched(data, at + 8, "<I", number)
    grey = np.asarray(picture("L"))
    odd = {
        "slope": {"RescaleSlope": "1E308", "RescaleIntercept": "1E308"},
        "still": {"RescaleSlope": "0", "RescaleIntercept": "0"},
        "down": {"RescaleSlope": "-1", "RescaleIntercept": "0"},
        "width0": {"WindowCenter": "10", "WindowWidth": "0"},
        "width1": {"WindowCenter": "10", "WindowWidth": "1"},
        "width-": {"WindowCenter": "10", "WindowWidth": "-5"},
        "nameless": {"WindowCenter": "10", "WindowWidth": "5", "VOILUTFunction": "MAGIC"},
        "frames0": {"NumberOfFrames": "0"},
        "frames2": {"NumberOfFrames": "2"},
        "frames-many": {"NumberOfFrames": "2147483647"},
        "shift": {"HighBit": 15},
        "hsv": {"PhotometricInterpretation": "HSV"},
    }
    for name, elements in odd.items():
        yield f"odd/{name}.dcm", dcm.dicom(grey, 8, **elements)
    table = Dataset()
    for descriptor in ([0, 0, 16], [65_535, 0, 16], [4, 65_527, 12], [4, 0, 99], [1, 0, 0]):
        table.LUTDescriptor, table.LUTData = descriptor, struct.pack("<4H", 1, 2, 3, 4)
        for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
            made = dcm.dicom(grey, 8, **{keyword: Sequence([table])})
            yield f"odd/{keyword}-{descriptor}.dcm", made
    lossless = b"1.2.840.10008.1.2.4.70"
    made = dcm.dicom(grey, 8, syntax=lossless.decode(), frame=b"\0" * 40)
    for name, syntax in {
        "lossless": lossless,
        "mpeg": b"1.2.840.10008.1.2.4.96",
        "private": b"1.2.3.4.5.6.7.8.9.1.23",
        "none": bytes(22),
    }.items():
        yield f"syntax/{name}.dcm", made.replace(lossless, syntax)
    yield "syntax/ht.dcm", dcm.dicom(grey, 8, syntax="1.2.840.10008.1.2.4.201", frame=b"\0" * 40)
    other = dcm.as_jpeg(np.zeros((9, 9), np.uint8))
    yield "syntax/size.dcm", dcm.dicom(grey, 8, syntax=JPEGBaseline8Bit, frame=other)


def without_pixels() -> Named:
    """What DICOM files hold besides pictures."""
    kinds = {"sr": "1.2.840.10008.5.1.4.1.1.88.11", "dir": "1.2.840.10008.1.3.10"}
    kinds |= {"pdf": "1.2.840.10008.5.1.4.1.1.104.1", "unknown": "1.2.3.99.7781"}
    for name, uid in kinds.items():
        ds = dcm.dataset()
        ds.SOPClassUID = uid
        yield f"none/{name}.dcm", dcm.written(ds)
    yield "none/preamble.dcm", bytes(128) + b"DICM"
    yield "none/junk.dcm", bytes(128) + b"DICM" + b"x" * 50


_SUFFIXES = {"dicom": ".dcm", "heic": ".heic", "avif": ".avif", "jpeg2000": (".jp2", ".j2k")}


def quick(form: str | None = None) -> Named:
    """All that is small, of one of the formats or of all."""
    for kind in (_sound, truncated, flipped, lying_boxes, lying_elements, without_pixels):
        for name, data in kind():
            if form is None or name.endswith(_SUFFIXES[form]):
                yield name, data


def _sound() -> Named:
    yield from ((f"sound/{name}", data) for name, data in sound().items())


# -- bombs ----------------------------------------------------------------------------------------
def element(group: int, number: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An element of explicit VR with a length of four bytes, true or not."""
    length = len(value) if length is None else length
    return struct.pack("<HH2sHI", group, number, vr, 0, length) + value


def with_elements(data: bytes) -> bytes:
    """A sound file with more elements in front of its others."""
    sound = sound_dicom()["explicit.dcm"]
    at = sound.index(struct.pack("<HH", 8, 0x16))
    return sound[:at] + data + sound[at:]


def dicom_bombs() -> Named:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end, close = (struct.pack("<HHI", 0xFFFE, tag, 0) for tag in (0xE00D, 0xE0DD))
    nested = b"".join(element(8, 0x1140, b"SQ", b"", 0xFFFFFFFF) + item for _ in range(20_000))
    yield "bomb/nested.dcm", with_elements(nested)
    many = (item + end) * 2_000_000 + close
    yield "bomb/items.dcm", with_elements(element(8, 0x1140, b"SQ", many, 0xFFFFFFFF))
    yield "bomb/elements.dcm", with_elements(struct.pack("<HH2sH", 9, 1, b"SH", 0) * 8_000_000)
    yield "bomb/large.dcm", with_elements(element(9, 1, b"OB", bytes(60_000_000)))
    yield "bomb/endless.dcm", with_elements(element(9, 1, b"OB", bytes(90_000_000), 0xFFFFFFFF))
    yield "bomb/claims.dcm", with_elements(element(9, 1, b"OB", b"", 0xFFFFFFFE))
    yield "bomb/window.dcm", with_elements(element(0x28, 0x1050, b"UT", b"1\\" * 20_000_000))
    meta = sound_dicom()["deflated.dcm"]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(1_000_000)) for _ in range(2_000)) + packer.flush()
    yield "bomb/deflated.dcm", meta[: _end_of_meta(meta)] + body
    grey = np.zeros((4, 4), np.uint8)
    size = {"Rows": 60_000, "Columns": 60_000}
    yield "bomb/claimed.dcm", dcm.dicom(grey, 8, **size)
    rle = struct.pack("<16I", 1, 64, *[0] * 14)
    big = {"Rows": 4_000, "Columns": 4_000}
    for name, segment, says in (
        ("claimed-rle", b"\x81\0", size),
        ("run", b"\x81\0" * 20_000_000, {}),
        ("singles", b"\0\0" * 16_000_000, big),
    ):
        made = dcm.dicom(grey, 8, syntax=RLELossless, frame=rle + segment, **says)
        yield f"bomb/{name}.dcm", made
    fragments = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 4_000_000
    made = dcm.dicom(grey, 8, syntax=JPEGBaseline8Bit, frame=b"\0\0")
    yield "bomb/fragments.dcm", made.replace(close, fragments + close)
    deep = np.zeros((6_000, 8_000), np.uint16)
    window = {"WindowCenter": 10, "WindowWidth": 20}
    yield "bomb/48MP.dcm", dcm.dicom(deep, **window)
    yield "bomb/48MP-colour.dcm", dcm.dicom(np.zeros((5_000, 6_400, 3), np.uint8), 8, "YBR_FULL")
    square = np.zeros((4_000, 4_000), np.uint16)
    yield "bomb/16MP-jpeg2000.dcm", dcm.in_jpeg2000(square, 16, "MONOCHROME2", **window)
    yield "bomb/16MP-ls.dcm", dcm.dicom(square, 16, syntax=JPEGLSLossless, **window)
    yield "bomb/64MP-jpeg.dcm", dcm.in_jpeg(np.zeros((8_000, 8_000), np.uint8), "MONOCHROME2")


def _end_of_meta(data: bytes) -> int:
    """The group's length stands in its first element (PS3.10, 7.1)."""
    return 144 + int.from_bytes(data[140:144], "little")


def resized(data: bytes, box: bytes, offset: int, width: int, height: int) -> bytes:
    """A file whose first such box states another size, and whose pixels do not."""
    return patched(data, data.index(box) + offset, ">II", width, height)


def picture_bombs() -> Named:
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    blank = Image.new("RGB", (8_000, 6_000), "teal")
    pillow_heif.register_heif_opener()
    large = encode(blank, "HEIF", quality=10)
    yield "bomb/48MP.heic", large
    # Says 64 x 48 and holds 48 megapixels; and the other way round.
    yield "bomb/hides-48MP.heic", resized(large, b"ispe", 8, 64, 48)
    yield "bomb/claims.heic", resized(sound_heic()["rgb.heic"], b"ispe", 8, 7_000, 7_000)
    yield "bomb/claims-grid.heic", resized(sound_heic()["grid.heic"], b"ispe", 8, 60_000, 60_000)
    large = encode(blank, "AVIF", speed=10, quality=10)
    yield "bomb/48MP.avif", large
    yield "bomb/hides-48MP.avif", resized(large, b"ispe", 8, 64, 48)
    yield "bomb/claims.avif", resized(sound_avif()["rgb.avif"], b"ispe", 8, 7_000, 7_000)
    square = Image.new("RGB", (4_000, 4_000), "teal")
    yield "bomb/16MP.jp2", encode(square, "JPEG2000")
    yield "bomb/16MP-tiles.jp2", encode(square, "JPEG2000", tile_size=(64, 64))
    rough = Image.fromarray(noise).resize((4_000, 4_000), Image.Resampling.NEAREST)
    yield "bomb/16MP-rough.jp2", encode(rough, "JPEG2000")
    grain = np.random.default_rng(2).integers(0, 256, (4_000, 4_000), dtype=np.uint8)
    yield "bomb/16MP-noise.jp2", encode(Image.fromarray(grain), "JPEG2000")
    stream = sound_jpeg2000()["stream.j2k"]
    large = patched(stream, 8, ">II", 4_000, 4_000)
    for tile in (1, 2, 8, 2**31 - 1):
        yield f"bomb/tiles-of-{tile}.j2k", patched(large, 24, ">II", tile, tile)


def slow() -> Named:
    """Small files that ask for much, and the largest that are let in."""
    yield from dicom_bombs()
    yield from picture_bombs()

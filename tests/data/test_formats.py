"""HEIC, AVIF, JPEG 2000: upright once, the right one of several, a line where one is missing."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from pipelines.data.images import file_header, glance, open_image
from pipelines.data.pixel_range import Reading
from pipelines.data.tree import EXTRAS, extra_format_of, missing_extra, missing_extra_of_many
from pipelines.errors import CorruptImageError

ROOT = Path(__file__).parents[2]
RED, WHITE = (255, 0, 0), (255, 255, 255)
pillow_heif.register_heif_opener()


def picture(width_px: int = 96, height_px: int = 64) -> Image.Image:
    """Red above, white below."""
    image = Image.new("RGB", (width_px, height_px), WHITE)
    image.paste(RED, (0, 0, width_px, height_px // 2))
    return image


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["HEIF", "AVIF", "JPEG2000"])
def test_told_by_content_and_read(form, tmp_path):
    file = tmp_path / "IMG_0001.jpg"
    file.write_bytes(encode(picture(), form))
    opened, seen, header = open_image(file), glance(file, side_px=16), file_header(file, "a")
    assert (opened.format, seen.format, header.format) == (form, form, form)
    assert opened.rgb.size == header.size == (96, 64)
    assert np.allclose(opened.rgb.getpixel((48, 4)), RED, atol=12)
    assert np.allclose(opened.rgb.getpixel((48, 60)), WHITE, atol=12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["HEIF", "AVIF"])
def test_a_rotation_is_applied_once(form, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(undo[orientation]) if orientation > 1 else picture()
    # In the picture's own EXIF, of which both encoders make the container's rotation.
    stored.getexif()[0x0112] = orientation
    data = encode(stored, form, **({"exif": stored.getexif()} if form == "AVIF" else {}))
    for image in (open_image(data).rgb, glance(data, side_px=32).grey.convert("RGB")):
        assert image.width > image.height
        middle = image.width // 2
        assert image.getpixel((middle, 1))[1] < 100 < image.getpixel((middle, image.height - 2))[1]


def test_of_several_pictures_the_primary_is_read():
    heif = pillow_heif.from_pillow(Image.new("RGB", (64, 64), "white"))
    heif.add_from_pillow(picture())
    buffer = io.BytesIO()
    heif.save(buffer, primary_index=1)
    assert open_image(buffer.getvalue()).rgb.size == (96, 64)


def test_the_photo_is_read_and_never_its_thumbnail():
    heif = pillow_heif.from_pillow(picture(512, 512))
    buffer = io.BytesIO()
    heif.save(buffer, thumbnails=[128])
    assert glance(buffer.getvalue(), side_px=64).grey.size == (64, 64)
    assert open_image(buffer.getvalue(), least_side_px=64).rgb.size == (512, 512)


def test_ten_bits_of_heic_are_eight_as_libheif_has_it():
    levels = (np.asarray(picture()).astype(np.uint16) << 8).tobytes()
    buffer = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (96, 64), levels).save(buffer)
    assert pillow_heif.open_heif(buffer, convert_hdr_to_8bit=False).info["bit_depth"] == 10
    opened = open_image(buffer.getvalue())
    assert opened.mode == "RGB"
    assert np.allclose(opened.rgb.getpixel((48, 4)), RED, atol=12)


def test_an_animated_avif_is_refused():
    data = encode(picture(), "AVIF", save_all=True, append_images=[Image.new("RGB", (96, 64))])
    with pytest.raises(CorruptImageError, match="more than one frame"):
        open_image(data)


def test_a_deep_jpeg_2000_goes_by_the_range():
    deep = np.tile(np.arange(0, 65_536, 1024, dtype=np.uint16), (32, 1))
    data = encode(Image.fromarray(deep), "JPEG2000")
    with pytest.raises(CorruptImageError, match=r"image\.range"):
        open_image(data)
    shown = np.asarray(open_image(data, reading=Reading(range=(0, 32_768))).rgb)[0, :, 0]
    assert np.abs(shown - np.rint(deep[0].clip(0, 32_768) / 32_768 * 255)).max() <= 1


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
def test_formats_that_need_an_extra_are_told_by_content(head, form):
    assert extra_format_of(head) == form


def test_the_line_counts_and_says_what_to_install():
    reason = missing_extra("HEIC")
    assert missing_extra_of_many(8, "blight", reason) == (
        "8 files of blight are HEIC; pip install 'fieldlens[heic]'"
    )
    assert missing_extra_of_many(1, "rust", missing_extra("DICOM")) == (
        "1 file of rust is DICOM; pip install 'fieldlens[dicom]'"
    )
    assert missing_extra_of_many(1, "rust", "the file is empty") is None


def test_extras_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in EXTRAS.values():
        assert f"\n{extra} = [" in text


def test_without_the_extra_every_door_says_so(tmp_path):
    file = tmp_path / "IMG_1.jpg"
    file.write_bytes(encode(picture(), "HEIF"))
    program = f"""
import sys; sys.modules['pillow_heif'] = None
from pathlib import Path
from pipelines.data.images import glance, open_image
from pipelines.data.images import file_header
from pipelines.errors import CorruptImageError
doors = (open_image, lambda file: glance(file, side_px=9), lambda file: file_header(file, 'a'))
for door in doors:
    try: door(Path({str(file)!r}))
    except CorruptImageError as err: print(err.reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [missing_extra("HEIC")] * 3


def test_a_head_that_is_all_there_is_of_a_heic_is_called_damaged():
    with pytest.raises(CorruptImageError, match="damaged or truncated HEIC"):
        open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))

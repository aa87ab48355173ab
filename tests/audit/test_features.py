from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipelines.audit import features
from pipelines.audit.features import facts_table, file_facts, original_facts, view_facts
from pipelines.data.images import open_image
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess, View


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 90 if mode == "L" else (90, 20, 200)).save(buffer, kind, **options)
    return buffer.getvalue()


def test_facts_of_files():
    png = file_facts(encoded("PNG", "L"), "x/a.PNG")
    assert (png.width_px, png.height_px, png.mode, png.format) == (40, 30, "L", "PNG")
    assert (png.suffix, png.quantisation, png.has_exif) == (".png", (), False)
    fine, coarse = (file_facts(encoded("JPEG", quality=q), "a.jpeg") for q in (95, 30))
    assert len(fine.quantisation) == len(coarse.quantisation) == 2
    assert fine.quantisation[0] < coarse.quantisation[0]
    exif = Image.Exif()
    exif[0x0112] = 1
    assert file_facts(encoded("JPEG", exif=exif), "a.jpg").has_exif


def test_table_has_a_row_a_file_and_tells_modes_and_types_apart():
    facts = [
        file_facts(encoded("PNG"), "a.png"),
        file_facts(encoded("JPEG"), "b.jpg"),
        file_facts(encoded("JPEG", "L"), "c.jpg"),
    ]
    table = facts_table(facts, [{}, {}, {}])
    assert table.shape == (3, 12)
    assert np.isfinite(table).all()
    assert len({tuple(row) for row in table[:, 9:11]}) == 3


def test_stated_originals_are_columns_and_what_is_missing_is_marked(tmp_path):
    rows = "path,label,original_width_px,original_mode\na.png,x,1420,RGB\n./b.png,x,,L\n"
    (tmp_path / "records.csv").write_text(rows)
    stated = original_facts(tmp_path)
    assert stated["b.png"] == {"original_width_px": "", "original_mode": "L"}
    facts = [file_facts(encoded("PNG"), "a.png")] * 2
    table = facts_table(facts, [stated["a.png"], stated["b.png"]])
    assert table[:, 12].tolist() == [1420, -1]
    assert table[:, 15].tolist() == [1, 0]
    (tmp_path / "records.csv").write_text("path,label\na.png,x\n")
    assert original_facts(tmp_path) == {}
    assert original_facts(tmp_path / "none") == {}


def test_facts_of_a_tiff_that_pillow_alone_does_not_open():
    # 2 x 2 pixels of 16 bits, white is zero, Motorola's byte order.
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, 0), (273, 128), (277, 1), (279, 8)]
    data = struct.pack(">2sHIH", b"MM", 42, 8, len(tags))
    data += b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    data = data.ljust(128, b"\0") + struct.pack(">4H", 0, 9, 9, 4095)
    reading = Reading(range=(0.0, 4095.0))
    assert open_image(data, reading=reading).rgb.getpixel((0, 0)) == (255, 255, 255)
    assert (file_facts(data, "a.tif").format, file_facts(data, "a.tif").width_px) == ("TIFF", 2)


def test_border_sees_the_edge_and_not_the_middle():
    pixels = np.full((100, 100, 3), 50, np.uint8)
    inner = pixels.copy()
    inner[4:96, 4:96] = 255
    assert (features.border(pixels) == features.border(inner)).all()
    outer = pixels.copy()
    outer[:4] = 200
    strip = features.border(outer).reshape(4, 16, 3)
    assert (strip[0] == 200).all()
    assert (strip[1] == 50).all()


@pytest.mark.parametrize("side", [1, 3, 224])
def test_border_thumbnail_and_colours_of_any_side(side):
    pixels = np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8)
    assert features.border(pixels).shape == (192,)
    assert features.thumbnail(pixels).shape == (64,)
    assert features.colours(pixels).sum() == pytest.approx(1)


def test_colours_count_wherever_they_are():
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:5] = (255, 0, 0)
    assert (features.colours(pixels) == features.colours(pixels[::-1])).all()
    assert sorted(features.colours(pixels))[-2:] == [0.5, 0.5]


# -- what a view leaves of a file's facts ----------------------------------------------------------
def smooth(width_px: int, height_px: int) -> Image.Image:
    y, x = np.mgrid[0:height_px, 0:width_px]
    pixels = np.stack([255 * x / width_px, 255 * y / height_px, 90 + 0 * x], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def test_view_says_whether_it_is_grey():
    image = smooth(60, 50)
    grey = image.convert("L").convert("RGB")
    off, on = Preprocess(40, 32), Preprocess(40, 32, View(grey=True))
    assert [view_facts(off(each)).is_grey for each in (image, grey)] == [False, True]
    assert [view_facts(on(each)).is_grey for each in (image, grey)] == [True, True]


def test_bytes_tell_of_detail_and_not_of_the_codec():
    image = smooth(60, 50)
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    preprocess = Preprocess(90, 80)
    assert view_facts(preprocess(noisy)).n_bytes > 2 * view_facts(preprocess(image)).n_bytes
    lossless = set()
    for form in ("PNG", "BMP", "TIFF"):
        buffer = io.BytesIO()
        image.save(buffer, form)
        lossless.add(view_facts(preprocess(open_image(buffer.getvalue()).rgb)))
    assert len(lossless) == 1


def test_a_grey_view_is_not_smaller_for_its_mode_alone():
    grey = Preprocess(40, 32)(smooth(60, 50).convert("L").convert("RGB"))
    tinted = grey.copy()
    tinted[0, 0, 0] ^= 1
    assert abs(view_facts(grey).n_bytes - view_facts(tinted).n_bytes) < 12

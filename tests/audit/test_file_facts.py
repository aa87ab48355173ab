from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipelines.audit import low_level
from pipelines.audit.features import facts_table, file_facts, original_facts
from pipelines.data.images import open_image
from pipelines.data.pixel_range import Reading


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


def test_border_sees_the_edge_and_not_the_middle():
    pixels = np.full((100, 100, 3), 50, np.uint8)
    inner = pixels.copy()
    inner[4:96, 4:96] = 255
    assert (low_level.border(pixels) == low_level.border(inner)).all()
    outer = pixels.copy()
    outer[:4] = 200
    strip = low_level.border(outer).reshape(4, 16, 3)
    assert (strip[0] == 200).all()
    assert (strip[1] == 50).all()


@pytest.mark.parametrize("side", [1, 3, 224])
def test_low_level_of_any_side(side):
    pixels = np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8)
    assert low_level.border(pixels).shape == (192,)
    assert low_level.thumbnail(pixels).shape == (64,)
    assert low_level.colours(pixels).sum() == pytest.approx(1)


def test_colours_count_wherever_they_are():
    pixels = np.zeros((10, 10, 3), np.uint8)
    pixels[:5] = (255, 0, 0)
    assert (low_level.colours(pixels) == low_level.colours(pixels[::-1])).all()
    assert sorted(low_level.colours(pixels))[-2:] == [0.5, 0.5]


def test_facts_of_a_tiff_that_pillow_alone_does_not_open() -> None:
    # 2 x 2 pixels of 16 bits, white is zero, Motorola's byte order.
    tags = [(256, 2), (257, 2), (258, 16), (259, 1), (262, 0), (273, 128), (277, 1), (279, 8)]
    data = struct.pack(">2sHIH", b"MM", 42, 8, len(tags))
    data += b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    data = data.ljust(128, b"\0") + struct.pack(">4H", 0, 9, 9, 4095)
    reading = Reading(range=(0.0, 4095.0))
    assert open_image(data, reading=reading).rgb.getpixel((0, 0)) == (255, 255, 255)
    assert (file_facts(data, "a.tif").format, file_facts(data, "a.tif").width_px) == ("TIFF", 2)

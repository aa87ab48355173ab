"""Contact sheets: which images, where, and the same bytes again."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageFont

from pipelines.data.contact_sheets import SHEET_IMAGES, Tile, _caption, contact_sheet, pick
from pipelines.data.manifest import Entry


def entry(path: str, label: str = "a") -> Entry:
    return Entry(path, label, path, "", "train", "00", 1, 1)


@pytest.mark.parametrize("n", [0, 1, 23, 24, 25, 100])
def test_pick_is_even_and_bounded(n: int) -> None:
    entries = [entry(f"{index:03d}") for index in range(n)] + [entry("999", "b")]
    picked = pick(reversed(entries), "a")
    paths = [each.path for each in picked]
    assert len(paths) == len(set(paths)) == min(n, SHEET_IMAGES)
    assert paths == sorted(paths)
    assert paths[:1] == ["000"][:n]
    gaps = {int(b) - int(a) for a, b in itertools.pairwise(paths)}
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_sheet_shows_every_picture_and_is_the_same_again() -> None:
    colours = [(index * 9, 250 - index * 9, 40) for index in range(SHEET_IMAGES)]
    tiles = [Tile(Image.new("RGB", (300, 200), c), f"{c}.png", "val") for c in colours]
    data = contact_sheet("a: 24 of 24 images", tiles)
    assert data == contact_sheet("a: 24 of 24 images", tiles)
    sheet = Image.open(io.BytesIO(data))
    assert set(colours) <= {colour for _, colour in sheet.getcolors(1 << 24) or ()}
    assert sheet.size == (6 * 168 + 8, 4 * 184 + 32)


@dataclass
class Letters:
    """A font whose letters are all 8 px wide."""

    def getlength(self, text: str) -> int:
        return 8 * len(text)


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("leaf.png", "val leaf.png"),
        ("a_very_long_name_of_leaf.png", "val …ame_of_leaf.png"),
        ("two\nlines.png", "val two?lines.png"),
    ],
)
def test_caption_keeps_the_end_of_the_name_in_one_line(name: str, caption: str) -> None:
    tile = Tile(Image.new("RGB", (1, 1)), name, "val")
    shown = _caption(tile, Letters())  # type: ignore[arg-type]
    assert shown == caption
    assert len(shown) <= 20 or shown == f"val {name}"


def test_default_font_draws_a_long_unicode_name() -> None:
    tile = Tile(Image.new("RGB", (1, 1)), "鯉" * 200 + ".png", "train")
    font = ImageFont.load_default(12)
    assert font.getlength(_caption(tile, font)) <= 160
    assert contact_sheet("a", [tile])


def test_note_is_a_second_line_and_sheets_without_one_have_no_room_for_it() -> None:
    picture = Image.new("RGB", (160, 160), (9, 90, 9))
    plain, noted, long = (
        Image.open(io.BytesIO(contact_sheet("a", [Tile(picture, "x.png", "val", note)])))
        for note in ("", "0.93 nevus?", "0.93 " + "very " * 20 + "long\n")
    )
    assert noted.height == long.height > plain.height
    assert noted.tobytes() != long.tobytes()
    # What does not fit is cut: nothing is drawn beyond the tile.
    beyond = np.asarray(long.convert("L"))[192:, 8 + 160 :]
    assert (beyond == 255).all()

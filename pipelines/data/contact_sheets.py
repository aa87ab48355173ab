"""Contact sheets: a glance at what a class looks like, before anything is trained on it.

Pure: pictures in, PNG bytes out, the same bytes for the same pictures. Called by `prepare`.
"""

from __future__ import annotations

import io
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipelines.data.manifest import Entry, Split

#: Images on a sheet, and how many stand in a row.
SHEET_IMAGES = 24
_COLUMNS = 6

_TILE_PX = 160
_CAPTION_PX = 16
_GAP_PX = 8
_FONT_PX = 12
#: zlib's level: 6 saves a twelfth of the bytes and takes nearly three times as long.
_EFFORT = 2
_PAPER = (255, 255, 255)
_INK = (32, 32, 32)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture of a sheet.

    Attributes:
        name: of the file; its end is shown.
        split: shown before the name.
        note: a second line; the sheet has room for it only if a tile has one.
    """

    picture: Image.Image
    name: str
    split: Split
    note: str = ""


def pick(entries: Iterable[Entry], label: str) -> list[Entry]:
    """At most `SHEET_IMAGES` entries of a label, evenly spaced by path."""
    listed = sorted((e for e in entries if e.label == label), key=lambda entry: entry.path)
    n = min(len(listed), SHEET_IMAGES)
    return [listed[index * len(listed) // n] for index in range(n)]


def contact_sheet(title: str, tiles: Sequence[Tile]) -> bytes:
    """A PNG file with a grid of captioned pictures, at least one, under a title."""
    font = ImageFont.load_default(_FONT_PX)
    n_lines = 2 if any(tile.note for tile in tiles) else 1
    cell = (_TILE_PX + _GAP_PX, _TILE_PX + n_lines * _CAPTION_PX + _GAP_PX)
    n_rows = -(-len(tiles) // _COLUMNS)
    size = (_COLUMNS * cell[0] + _GAP_PX, n_rows * cell[1] + _CAPTION_PX + 2 * _GAP_PX)
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP_PX, _GAP_PX), title, fill=_INK, font=font)
    for index, tile in enumerate(tiles):
        left = _GAP_PX + index % _COLUMNS * cell[0]
        top = _CAPTION_PX + 2 * _GAP_PX + index // _COLUMNS * cell[1]
        small = ImageOps.contain(tile.picture, (_TILE_PX, _TILE_PX))
        offset = ((_TILE_PX - small.width) // 2, (_TILE_PX - small.height) // 2)
        sheet.paste(small, (left + offset[0], top + offset[1]))
        caption = _caption(tile, font)
        draw.text((left, top + _TILE_PX + 1), caption, fill=_INK, font=font)
        if tile.note:
            below = top + _TILE_PX + _CAPTION_PX
            draw.text((left, below), _fitting(tile.note, font), fill=_INK, font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=_EFFORT)
    return buffer.getvalue()


def _caption(tile: Tile, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The split and as much of the name's end as fits, in one line."""
    name = _printable(tile.name)
    whole = f"{tile.split} {name}"
    if font.getlength(whole) <= _TILE_PX:
        return whole

    def cut(start: int) -> str:
        return f"{tile.split} …{name[start:]}"

    starts = range(1, len(name))
    return cut(
        1 + bisect_left(starts, True, key=lambda start: font.getlength(cut(start)) <= _TILE_PX)
    )


def _fitting(note: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of the note's beginning as fits in one line."""
    line = _printable(note)
    if font.getlength(line) <= _TILE_PX:
        return line
    n_letters = bisect_left(
        range(len(line)), True, key=lambda n: font.getlength(f"{line[:n]}…") > _TILE_PX
    )
    return f"{line[: max(0, n_letters - 1)]}…"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)

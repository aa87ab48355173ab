"""Pictures with boxes drawn into them: what is true, what was found, and what is which."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: By place of the label; apart in hue and in brightness.
COLOURS = ("#2ecc71", "#e74c3c", "#3498db", "#f1c40f", "#9b59b6", "#1abc9c", "#e67e22", "#ecf0f1")
_TILE_PX, _HEAD_PX, _GAP_PX, _COLUMNS = 280, 26, 6, 4
_TRUE = "#ffffff"


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture and its boxes, corners in px of it.

    Attributes:
        pixels: (h, w, 3).
        true: label and corners.
        found: label, score and corners.
    """

    pixels: NDArray[np.uint8]
    true: Sequence[tuple[str, NDArray[np.floating]]]
    found: Sequence[tuple[str, float, NDArray[np.floating]]]


def colour_of(label: str, labels: Sequence[str]) -> str:
    """The colour of a label's boxes."""
    return COLOURS[list(labels).index(label) % len(COLOURS)]


def boxes_sheet(drawn: Sequence[Drawn], labels: Sequence[str]) -> bytes:
    """PNG of some pictures side by side: a thin white line is true, a thick coloured one found."""
    n_rows = -(-len(drawn) // _COLUMNS)
    step = _TILE_PX + _GAP_PX
    size = (_COLUMNS * step, _HEAD_PX + n_rows * step)
    sheet = Image.new("RGB", size, "#1c1f24")
    pen, font, x = ImageDraw.Draw(sheet), ImageFont.load_default(13), 4.0
    for words, colour in [("true", _TRUE), *((name, colour_of(name, labels)) for name in labels)]:
        pen.rectangle((x, 8, x + 12, 20), outline=colour, width=3 if words != "true" else 1)
        pen.text((x + 17, 6), words, fill="#dddddd", font=font)
        x += 30 + pen.textlength(words, font=font)
    for number, one in enumerate(drawn):
        row, column = divmod(number, _COLUMNS)
        sheet.paste(_tile(one, labels), (column * step, _HEAD_PX + row * step))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _tile(one: Drawn, labels: Sequence[str]) -> Image.Image:
    picture = Image.fromarray(one.pixels)
    scale = _TILE_PX / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for label, score, corners in sorted(one.found, key=lambda each: each[1]):
        x0, y0, x1, y1 = (float(side) * scale for side in corners)
        colour = colour_of(label, labels)
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=colour, width=2)
        pen.text((x0 + 2, max(y0 - 12, 0)), f"{score:.2f}", fill=colour, font=font)
    for _, corners in one.true:
        x0, y0, x1, y1 = (float(side) * scale for side in corners)
        pen.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline=_TRUE, width=1)
    return picture

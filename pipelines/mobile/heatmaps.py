"""A heat map drawn over its picture, as PNG bytes; the same map gives the same bytes.

NumPy and Pillow alone, so that an app can draw what it explains. Called by `fieldlens explain`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: Every sixteenth entry of *inferno*, from dark to bright, RGB in [0, 255]: lightness rises evenly,
#: so that it reads the same in grey and to any colour vision. By N. J. Smith and S. van der Walt
#: 2015 (CC0), as shipped in matplotlib.
_INFERNO: NDArray[np.uint8] = np.asarray(
    [
        *((0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110), (113, 25, 110)),
        *((138, 34, 106), (163, 44, 97), (188, 55, 84), (208, 69, 69), (227, 89, 51)),
        *((241, 113, 31), (249, 140, 10), (252, 170, 15), (249, 201, 50), (242, 232, 101)),
        (252, 255, 164),
    ],
    dtype=np.uint8,
)

#: How much of a pixel the colour takes where the map is coldest and where it is hottest; the rest
#: is the picture in grey, so that every colour belongs to the map.
_LEAST_INK, _MOST_INK = 0.25, 0.75
#: Rec. ITU-R BT.601-7, section 2.5.1: luma of RGB.
_LUMA = (0.299, 0.587, 0.114)

_GAP_PX = 12
_FONT_PX = 14
_LINE_PX = 20
_BAR_PX = 12
#: Smaller pictures are enlarged to about this side, in whole steps, so that the words fit.
_LEAST_SIDE_PX = 224
_PAPER = (255, 255, 255)
_INK = (32, 32, 32)


def colours(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours of a dark-to-bright scale.

    Args:
        values: of any shape, in [0, 1].

    Returns:
        The shape of ``values`` and 3, RGB in [0, 255].
    """
    anchors = np.linspace(0.0, 1.0, len(_INFERNO))
    channels = [np.interp(values, anchors, _INFERNO[:, channel]) for channel in range(3)]
    found: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return found


def overlay(
    pixels: NDArray[np.uint8], heat: NDArray[np.floating], *, full_heat: float
) -> NDArray[np.uint8]:
    """The picture in grey under the colours of a map.

    Args:
        pixels: (h, w, 3), in [0, 255].
        heat: (h, w); what is below 0 is drawn as 0.
        full_heat: value of the brightest colour; 0 or less draws everything as 0.

    Returns:
        (h, w, 3), in [0, 255].
    """
    share = np.clip(heat / full_heat, 0.0, 1.0) if full_heat > 0 else np.zeros(heat.shape)
    grey = (pixels @ np.asarray(_LUMA))[..., np.newaxis]
    ink = (_LEAST_INK + (_MOST_INK - _LEAST_INK) * share)[..., np.newaxis]
    drawn: NDArray[np.uint8] = np.rint(ink * colours(share) + (1 - ink) * grey).astype(np.uint8)
    return drawn


def heatmap_png(
    pixels: NDArray[np.uint8],
    heat: NDArray[np.floating],
    lines: Sequence[str],
    *,
    full_heat: float,
    coldest: str,
    hottest: str,
) -> bytes:
    """Picture and overlay side by side, a colour bar, and words below, as a PNG file.

    Args:
        pixels: (h, w, 3), as the model sees the picture.
        heat: (h, w), any unit; 0 and below is drawn coldest.
        lines: what stands below; long ones are wrapped.
        full_heat: what is drawn hottest, and all above it.
        coldest: meaning of the bar's dark end.
        hottest: meaning of the bar's bright end.
    """
    scale = max(1, _LEAST_SIDE_PX // min(pixels.shape[:2]))
    left, right = (
        Image.fromarray(shown).resize(
            (pixels.shape[1] * scale, pixels.shape[0] * scale), Image.Resampling.NEAREST
        )
        for shown in (pixels, overlay(pixels, heat, full_heat=full_heat))
    )
    font = ImageFont.load_default(_FONT_PX)
    width = 2 * left.width + 3 * _GAP_PX
    words = [part for line in lines for part in _wrapped(line, font, width - 2 * _GAP_PX)]
    below = left.height + 2 * _GAP_PX
    height = below + _BAR_PX + _LINE_PX * (1 + len(words)) + _GAP_PX
    canvas = Image.new("RGB", (width, height), _PAPER)
    canvas.paste(left, (_GAP_PX, _GAP_PX))
    place = 2 * _GAP_PX + left.width
    canvas.paste(right, (place, _GAP_PX))
    ramp = np.linspace(0.0, 1.0, right.width)[np.newaxis].repeat(_BAR_PX, axis=0)
    canvas.paste(Image.fromarray(colours(ramp)), (place, below - _GAP_PX // 2))
    draw = ImageDraw.Draw(canvas)
    top = below + _BAR_PX
    draw.text((place, top), coldest, fill=_INK, font=font)
    draw.text((place + right.width, top), hottest, fill=_INK, font=font, anchor="ra")
    for number, line in enumerate(words, start=1):
        draw.text((_GAP_PX, top + number * _LINE_PX), line, fill=_INK, font=font)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _wrapped(
    line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int
) -> list[str]:
    """The line in pieces that fit; a word longer than a line is left to run over."""
    pieces: list[str] = []
    for word in line.split():
        longer = f"{pieces[-1]} {word}" if pieces else word
        if pieces and font.getlength(longer) <= width_px:
            pieces[-1] = longer
        else:
            pieces.append(word)
    return pieces

"""Which places of a picture speak for a label: a patch is covered, and the model asked again.

Works on the very file that is served, int8 or not, because it needs answers and no gradients. The
map is drawn over its picture, as PNG bytes; the same map gives the same bytes. NumPy and Pillow
alone, so that an app can call it. Called by `fieldlens explain`.

References:
    Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2: a
    grey square is moved over the picture.
    Robnik-Šikonja and Kononenko 2008, "Explaining classifications for individual instances": the
    difference of log-odds as weight of evidence; a probability near 1 would hardly move.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: Steps of the patch along one side, and how many steps wide the patch is: at 224 px a patch of
#: 48 px moves by 16 px, the width of half a cell of the backbone's last feature map, and 144 places
#: are tried.
_STEPS = 14
_PATCH_STEPS = 3
#: Pictures in one run of the model. More do not make ONNX Runtime faster on one thread: they leave
#: the processor's cache (int8, 224 px: 3.6 ms a picture in fours, 5.2 ms in thirty-twos).
_BATCH = 4


def occlusion_map(
    logits_of: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    pixels: NDArray[np.uint8],
    class_index: int,
    *,
    patch_px: int | None = None,
    stride_px: int | None = None,
) -> NDArray[np.float32]:
    """By how much the log-odds of a label fall where a place is covered; as `falls`.

    The log-odds are ln(p / (1 - p)) at temperature 1.

    Args:
        logits_of: (n, side, side, 3) pixels -> (n, n_classes) logits.
        pixels: (side, side, 3) in [0, 255], as the model sees the picture.
        patch_px: as of `falls`.
        stride_px: as of `falls`.
    """
    return falls(
        lambda batch: log_odds(logits_of(batch), class_index),
        pixels,
        patch_px=patch_px,
        stride_px=stride_px,
    )


def falls(
    score_of: Callable[[NDArray[np.uint8]], NDArray[np.float64]],
    pixels: NDArray[np.uint8],
    *,
    patch_px: int | None = None,
    stride_px: int | None = None,
) -> NDArray[np.float32]:
    """By how much a score falls where a place is covered with the picture's own mean colour.

    A pixel's value is the mean over the patches that cover it.

    Args:
        score_of: (n, side, side, 3) pixels -> (n,), higher where the answer is surer.
        pixels: (side, side, 3) in [0, 255], as the model sees the picture.
        patch_px: side of the cover; None for 3/14 of the picture's side.
        stride_px: how far it moves; None for 1/14 of the picture's side.

    Returns:
        (side, side); above 0 where the place speaks for the answer, below 0 where against it.

    Raises:
        ValueError: if the patch does not fit or the stride leaves gaps.
    """
    side_px = min(pixels.shape[:2])
    stride = max(1, side_px // _STEPS) if stride_px is None else stride_px
    patch = min(side_px, _PATCH_STEPS * stride) if patch_px is None else patch_px
    if not 1 <= stride <= patch <= side_px:
        raise ValueError(
            f"expected 1 <= stride_px <= patch_px <= {side_px}, got stride_px {stride} and "
            f"patch_px {patch}"
        )
    before = float(score_of(pixels[np.newaxis])[0])
    places = list(_places(pixels.shape[0], pixels.shape[1], patch, stride))
    total = np.zeros(pixels.shape[:2], dtype=np.float64)
    times = np.zeros(pixels.shape[:2], dtype=np.float64)
    cover = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
    for start in range(0, len(places), _BATCH):
        some = places[start : start + _BATCH]
        batch = np.repeat(pixels[np.newaxis], len(some), axis=0)
        for picture, place in zip(batch, some, strict=True):
            picture[place] = cover
        lost = before - score_of(batch)
        for place, fall in zip(some, lost, strict=True):
            total[place] += fall
            times[place] += 1
    return (total / times).astype(np.float32)


def log_odds(logits: NDArray[np.float32], class_index: int) -> NDArray[np.float64]:
    """ln(p / (1 - p)) of one label, without rounding p to 1.

    Args:
        logits: (n, n_classes), at least two classes.

    Returns:
        (n,).
    """
    values = logits.astype(np.float64)
    others = np.delete(values, class_index, axis=1)
    highest = others.max(axis=1)
    # ln of the sum of the others' exponentials, kept from overflowing.
    rest = highest + np.log(np.exp(others - highest[:, np.newaxis]).sum(axis=1))
    result: NDArray[np.float64] = values[:, class_index] - rest
    return result


def _places(
    height_px: int, width_px: int, patch: int, stride: int
) -> Iterator[tuple[slice, slice]]:
    """Where the patch lies, row by row; the last of a row touches the edge."""
    for top in _starts(height_px, patch, stride):
        for left in _starts(width_px, patch, stride):
            yield slice(top, top + patch), slice(left, left + patch)


def _starts(side_px: int, patch: int, stride: int) -> list[int]:
    last = side_px - patch
    return [*range(0, last, stride), last]


# -- drawn over the picture ------------------------------------------------------------------------
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

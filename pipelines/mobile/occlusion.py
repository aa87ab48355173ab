"""Which places of a picture speak for a label: a patch is covered, and the model asked again.

Works on the very file that is served, int8 or not, because it needs answers and no gradients: NumPy
alone, so that an app can call it. Called by `fieldlens explain`; drawn by
`pipelines.mobile.heatmaps`.

References:
    Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 4.2: a
    grey square is moved over the picture.
    Robnik-Šikonja and Kononenko 2008, "Explaining classifications for individual instances": the
    difference of log-odds as weight of evidence; a probability near 1 would hardly move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

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
    """By how much the log-odds of a label fall where a place is covered.

    The cover has the picture's own mean colour. The log-odds are
    ln(p / (1 - p)) at temperature 1; a pixel's value is the mean over the patches that cover it.

    Args:
        logits_of: (n, side, side, 3) pixels -> (n, n_classes) logits.
        pixels: (side, side, 3) in [0, 255], as the model sees the picture.
        class_index: of the label that is explained.
        patch_px: side of the cover; None for 3/14 of the picture's side.
        stride_px: how far it moves; None for 1/14 of the picture's side.

    Returns:
        (side, side); above 0 where the place speaks for the label, below 0 where it speaks against.

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
    before = float(log_odds(logits_of(pixels[np.newaxis]), class_index)[0])
    places = list(_places(pixels.shape[0], pixels.shape[1], patch, stride))
    total = np.zeros(pixels.shape[:2], dtype=np.float64)
    times = np.zeros(pixels.shape[:2], dtype=np.float64)
    cover = np.rint(pixels.mean(axis=(0, 1))).astype(np.uint8)
    for start in range(0, len(places), _BATCH):
        some = places[start : start + _BATCH]
        batch = np.repeat(pixels[np.newaxis], len(some), axis=0)
        for picture, place in zip(batch, some, strict=True):
            picture[place] = cover
        falls = before - log_odds(logits_of(batch), class_index)
        for place, fall in zip(some, falls, strict=True):
            total[place] += fall
            times[place] += 1
    return (total / times).astype(np.float32)


def log_odds(logits: NDArray[np.float32], class_index: int) -> NDArray[np.float64]:
    """ln(p / (1 - p)) of one label, without rounding p to 1.

    Args:
        logits: (n, n_classes), at least two classes.
        class_index: of the label.

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

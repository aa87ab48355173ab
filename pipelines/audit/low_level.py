"""What is left of a picture when its subject is taken away: border, thumbnail, colours.

Each is small enough that no shape of a lesion, leaf or face survives in it. They are taken from the
plain view, so that they hold what a model could use and nothing else. Called by `audit`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Share of each side that counts as border.
BORDER_SHARE = 0.04
#: Pixels to which the border of one side is reduced.
_STRIP_PX = 16
#: Side of the grey thumbnail.
THUMBNAIL_PX = 8
#: Divisions of each channel in the joint colour histogram.
COLOUR_LEVELS = 6


def border(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The outermost pixels of the four sides, each side reduced to a strip of 16 colours.

    Args:
        pixels: (h, w, 3) RGB in [0, 255].

    Returns:
        (192,), in [0, 255].
    """
    height, width = pixels.shape[:2]
    rows = max(1, round(BORDER_SHARE * height))
    columns = max(1, round(BORDER_SHARE * width))
    sides = (
        pixels[:rows],
        pixels[-rows:],
        pixels[:, :columns].transpose(1, 0, 2),
        pixels[:, -columns:].transpose(1, 0, 2),
    )
    return np.concatenate([_reduced(side, (_STRIP_PX, 1)).ravel() for side in sides])


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture as 8x8 grey pixels.

    Args:
        pixels: (h, w, 3) RGB in [0, 255].

    Returns:
        (64,), in [0, 255].
    """
    size = (THUMBNAIL_PX, THUMBNAIL_PX)
    grey = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.uint8).ravel()


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shares of 6x6x6 colours, wherever in the picture they are.

    Args:
        pixels: (h, w, 3) RGB in [0, 255].

    Returns:
        (216,), adds up to 1.
    """
    level = pixels.astype(np.int64) * COLOUR_LEVELS // 256
    cells = (level[..., 0] * COLOUR_LEVELS + level[..., 1]) * COLOUR_LEVELS + level[..., 2]
    counts = np.bincount(cells.ravel(), minlength=COLOUR_LEVELS**3)
    return (counts / cells.size).astype(np.float32)


def _reduced(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)

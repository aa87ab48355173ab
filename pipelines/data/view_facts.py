"""What a view leaves of a file's facts: the audit's question, asked after normalisation.

Width, height, mode and type of a file are the same for all once every picture went through
`Preprocess`. What may be left is whether it is grey, and how many bytes it needs when all are
encoded alike: sharpness, noise and what an earlier codec took away. For `audit`; nothing is served
from here.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: A usual quality of photographs; high enough that the bytes tell fine detail.
_JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewFacts:
    """The file that a view would be, if all views were written alike.

    Attributes:
        width_px: the same for all views of a task.
        height_px: likewise.
        mode: ``L`` if the three channels are equal everywhere, ``RGB`` else.
        n_bytes: size as a JPEG of quality 90.
    """

    width_px: int
    height_px: int
    mode: str
    n_bytes: int


def view_facts(pixels: NDArray[np.uint8]) -> ViewFacts:
    """The facts of the file that a model's input would be.

    Args:
        pixels: (h, w, 3) in [0, 255], as `Preprocess` gives them.
    """
    height_px, width_px = pixels.shape[:2]
    is_grey = bool((pixels == pixels[:, :, :1]).all())
    buffer = io.BytesIO()
    # Always as colour, or a grey file would be smaller for its mode alone.
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return ViewFacts(
        width_px=width_px,
        height_px=height_px,
        mode="L" if is_grey else "RGB",
        n_bytes=buffer.tell(),
    )

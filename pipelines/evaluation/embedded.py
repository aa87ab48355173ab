"""A figure made small enough to stand inside a page: at the size of its display, as WebP.

Called by the pages; the figures themselves lie beside the report, whole.
"""

from __future__ import annotations

import io
from typing import NamedTuple

from PIL import Image

#: Twice 400 px: a figure is shown 320 to 640 px wide.
_WIDTHS_PX = (800, 640, 480)
_QUALITIES = (80, 60, 40, 20)


class Embedded(NamedTuple):
    """A picture that a page holds."""

    webp: bytes
    width_px: int
    height_px: int


def embedded(png: bytes, most_bytes: int) -> Embedded:
    """The best copy of a figure within so many bytes, or the smallest that is tried.

    Args:
        png: bytes of the file.
        most_bytes: bound on the copy.
    """
    with Image.open(io.BytesIO(png)) as image:
        whole = image.convert("RGB")
    copy = Embedded(b"", 0, 0)
    for width in _WIDTHS_PX:
        # By the longer side too: a sheet may be many times as high as it is wide.
        factor = min(1.0, width / whole.width, 2 * width / whole.height)
        size = (max(1, round(whole.width * factor)), max(1, round(whole.height * factor)))
        small = whole.resize(size, Image.Resampling.LANCZOS) if factor < 1 else whole
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            small.save(buffer, "WEBP", quality=quality, method=4)
            copy = Embedded(buffer.getvalue(), *size)
            if len(copy.webp) <= most_bytes:
                return copy
    return copy

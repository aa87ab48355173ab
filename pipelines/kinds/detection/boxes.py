"""What is true of a picture with boxes: as text in manifest.csv, as an array, as a view shows it.

Boxes are (x0, y0, x1, y1), along the edges of pixels: a picture of n px goes from 0 to n.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.data.manifest import Entry

#: Boxes of a picture, at most: arrays of truth have as many rows, those that are none being NaN.
MAX_BOXES = 200
#: A view shows a box if it shows this share of it, and more than so many of its px.
_SHOWN_SHARE, _SHOWN_PX = 0.3, 2.0

Floats = NDArray[np.floating]


class Marked(NamedTuple):
    """One box of the truth, in px of the upright picture."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float


def as_text(boxes: Iterable[Marked]) -> str:
    """`Record.truth`: a JSON list of lists, to a hundredth of a pixel."""
    return json.dumps([[box.label, *(round(float(side), 2) for side in box[1:])] for box in boxes])


def of_text(truth: str) -> list[Marked]:
    """The boxes of `Record.truth`."""
    return [Marked(*box) for box in json.loads(truth)]


def true_boxes(entries: Iterable[Entry], labels: Sequence[str]) -> NDArray[np.float32]:
    """(n, MAX_BOXES, 5) corners in px of the upright picture and number of the class.

    Args:
        labels: in the order of the model's outputs; boxes of others are left out.
    """
    number = {label: index for index, label in enumerate(labels)}
    listed = []
    for entry in entries:
        rows = np.full((MAX_BOXES, 5), np.nan, dtype=np.float32)
        shown = [box for box in of_text(entry.truth) if box.label in number]
        for row, box in zip(rows, shown, strict=False):
            row[:] = (*box[1:], number[box.label])
        listed.append(rows)
    return np.stack(listed)


def real(truth: Floats) -> Floats:
    """(k, 5) the rows of one image's truth that are boxes."""
    return truth[np.isfinite(truth[:, 4])]


def moved(corners: Floats, geometry: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, 4) boxes after a linear map, as upright boxes again.

    Of a turned box the ellipse within it is kept, not its corners: heads and cells are round, and
    a box around the corners would grow with the angle.

    Args:
        corners: (k, 4).
        geometry: (3, 3).
    """
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    half = (corners[:, 2:] - corners[:, :2]) / 2
    linear = geometry[:2, :2]
    centre = middle @ linear.T + geometry[:2, 2]
    reach = np.sqrt(half**2 @ (linear**2).T)
    return np.concatenate([centre - reach, centre + reach], axis=1)


def in_view(truth: Floats, geometry: NDArray[np.float64], side_px: int) -> NDArray[np.float32]:
    """(MAX_BOXES, 5) one image's boxes as a view shows them, corners as shares of its side.

    Boxes are cut at the view's edge; of which little is left, those go.

    Args:
        truth: (MAX_BOXES, 5) in px of the upright picture.
        geometry: (3, 3), from px of the upright picture to px of the view.
        side_px: of the view.
    """
    known = real(truth)
    placed = moved(known[:, :4].astype(np.float64), geometry)
    cut = np.clip(placed, 0, side_px)
    sides = cut[:, 2:] - cut[:, :2]
    area = np.prod(placed[:, 2:] - placed[:, :2], axis=1)
    is_shown = (sides.prod(axis=1) >= _SHOWN_SHARE * area) & (sides.min(axis=1) > _SHOWN_PX)
    found = np.full((MAX_BOXES, 5), np.nan, dtype=np.float32)
    found[: is_shown.sum(), :4] = cut[is_shown] / side_px
    found[: is_shown.sum(), 4] = known[is_shown, 4]
    return found

"""Outlines of COCO files as masks: polygons, and run lengths that are not compressed.

A pixel belongs to a polygon that holds its middle; of one that crosses itself, parts that are held
twice are outside. An annotation's parts are joined; of annotations that overlap, the later one is
seen. A region that is called a crowd shows its category as any other does.

References:
    cocodataset.org, "Data format": segmentation.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.annotations import Listed, known_label, read_coco, sizes_of, turn_of
from pipelines.data.tree import File
from pipelines.errors import DataError

#: Of the extent of a polygon, the least that must lie in the picture, as of a box.
_LEAST_INSIDE = 0.5
#: Of a mask as text, at most: what a cell of a table holds.
_MAX_CHARACTERS = 120_000

#: A polygon is (k, 2) corners; run lengths are a mapping.
Parts = Sequence[NDArray[np.float64]] | Mapping[str, Any]


def read_outlines(folder: Path, files: Sequence[File]) -> list[Listed[Parts]] | None:
    """The images that COCO files of a folder list, with their outlines; None without such a file.

    Raises:
        DataError: if a file cannot be read, or says what cannot be.
    """
    images = [str(file.path) for file in files if file.kind == "image"]
    others = [file.path for file in files if file.kind == "other"]
    return read_coco(folder, images, others, _parts, "outlines", "segmentation")


def _parts(annotation: Mapping[str, Any]) -> Parts:
    stated = annotation["segmentation"]
    if isinstance(stated, Mapping):
        return stated
    return [np.asarray(part, dtype=np.float64).reshape(-1) for part in stated]


def drawn_mask(
    folder: Path,
    listed: Listed[Parts],
    label_of: Callable[[str], str | None],
    labels: Sequence[str],
) -> NDArray[np.uint8]:
    """(height, width) in px of the upright picture: 0, or 1 + the place in ``labels``.

    Args:
        label_of: from the name of a category to a label of the card.

    Raises:
        DataError: if the image is not there, a category is unknown, or an outline cannot be.
    """
    whose = f"{listed.where}: {listed.path!r}"
    if not (folder / listed.path).is_file():
        raise DataError(
            f"{whose} is annotated and is not there. Expected each image that the file lists. Add "
            f"it, or take it out of the file."
        )
    sizes = sizes_of(folder / listed.path)
    if sizes is None:
        # No image: `prepare` says so, and its mask is never asked for.
        return np.zeros((1, 1), dtype=np.uint8)
    width, height = sizes.upright
    turn = turn_of(listed.path, listed.size, listed.where, sizes)
    mask = np.zeros((height, width), dtype=np.uint8)
    for name, parts in listed.marks:
        label = known_label(name, label_of, labels, f"{whose} has an outline")
        of = f"{whose}, an outline of {name!r}"
        if isinstance(parts, Mapping):
            mask[_of_runs(parts, mask.shape, of)] = 1 + labels.index(label)
            continue
        if not parts:
            raise DataError(
                f"{of}: there is none, maybe a box alone. Expected polygons, or run lengths. "
                f"Export outlines."
            )
        for part in parts:
            corners = _corners(part, of)
            turned = np.array([turn((x, y, x, y))[:2] for x, y in corners.tolist()])
            mask[_within(turned, (width, height), of)] = 1 + labels.index(label)
    return mask


def _corners(part: NDArray[np.float64], of: str) -> NDArray[np.float64]:
    if len(part) % 2 or len(part) < 6 or not np.isfinite(part).all():
        raise DataError(
            f"{of}: a polygon has {len(part)} numbers. Expected x and y of three corners or more, "
            f"finite. Mend or remove it."
        )
    return part.reshape(-1, 2)


def _within(corners: NDArray[np.float64], size: tuple[int, int], of: str) -> NDArray[np.bool_]:
    """The pixels of a polygon."""
    first, last = corners.min(axis=0), corners.max(axis=0)
    inside = np.minimum(last, size) - np.maximum(first, 0)
    is_outside = inside.min() <= 0 or inside.prod() < _LEAST_INSIDE * (last - first).prod()
    # Shares of the sides would all lie in one corner.
    is_share = len(corners) > 2 and last.max() <= 1
    found = None if is_outside or is_share else filled(corners, size)
    if found is None or not found.any():
        told = ", ".join(f"{side:g}" for side in (*first, *last))
        raise DataError(
            f"{of} lies outside of the picture of {size[0]} x {size[1]} px, or has no area: from "
            f"x, y to x, y it is {told} px. Expected px inside the picture. Mend or remove it."
        )
    return found


def filled(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(height, width) the pixels whose middle a polygon holds.

    Args:
        corners: (k, 2) in px, of which the edges may lie beyond the picture.
        size: width and height in px.
    """
    width, height = size
    crossings = np.zeros((height, width + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ends = (math.ceil(min(y0, y1) - 0.5), math.ceil(max(y0, y1) - 0.5))
        rows = np.arange(max(ends[0], 0), min(ends[1], height))
        if len(rows):
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            np.add.at(crossings, (rows, np.ceil(x - 0.5).clip(0, width).astype(int)), 1)
    within: NDArray[np.bool_] = crossings[:, :width].cumsum(axis=1) % 2 == 1
    return within


def _of_runs(stated: Mapping[str, Any], shape: tuple[int, ...], of: str) -> NDArray[np.bool_]:
    """The pixels of run lengths, down the columns: outside, inside, outside, …."""
    runs, size = stated.get("counts"), stated.get("size")
    if isinstance(runs, str | bytes):
        raise DataError(
            f"{of}: its run lengths are compressed, which is not read. Expected polygons, or "
            f"counts as a list of numbers. Export polygons."
        )
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        runs = []
    if size != list(shape) or sum(runs) != math.prod(shape):
        told = f"of {sum(runs):,} px" if runs else "no list of numbers"
        raise DataError(
            f"{of}: its run lengths are {told}, of the size {size}. Expected those of the upright "
            f"picture, [height, width] {list(shape)}. Export it again."
        )
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    found: NDArray[np.bool_] = inside.reshape(shape[::-1]).T
    return found


def as_png(mask: NDArray[np.uint8], whose: str) -> tuple[bytes, str]:
    """An indexed mask as bytes of a PNG, and as text that a table holds.

    Raises:
        DataError: if it has more detail than a table's cell can hold.
    """
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", optimize=True)
    text = base64.b64encode(buffer.getvalue()).decode()
    if len(text) > _MAX_CHARACTERS:
        raise DataError(
            f"{whose}: its outlines make a mask of {len(buffer.getvalue()):,} bytes. Expected at "
            f"most {_MAX_CHARACTERS * 3 // 4:,}. Save the set's masks as PNG in a folder 'masks'."
        )
    return buffer.getvalue(), text

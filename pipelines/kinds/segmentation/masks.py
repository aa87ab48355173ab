"""Mask files: which picture they belong to, what is refused of them, and how a view shows them.

A mask is a PNG of one channel, as large as the upright picture. Of one label it is binary, 0 and
255 (or 0 and 1); of several it is indexed, 0 where none is shown, else the place of the label on
the card, from 1. It has the name of its picture in a folder ``masks``: images/a.jpg and
masks/a.png, frames/x/a.jpg and frames/masks/x/a.png; the column ``mask`` of records.csv says it
otherwise. Outlines of COCO files (`outlines`) become such a PNG, which the truth holds itself.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipelines.data.images import read_file
from pipelines.data.manifest import Entry
from pipelines.data.pixel_range import max_pixels
from pipelines.data.preprocess import Geometry
from pipelines.data.tree import DECODER_ERRORS
from pipelines.errors import CorruptImageError, DataError

#: Folders whose names say what a file is, and not which picture it belongs to.
MASKS, _IMAGES = "masks", "images"
#: Truth is drawn at so many px of the view a cell: finer than the head says it.
STRIDE = 4
#: Indices above it are levels of grey, for whoever asks how many labels a folder has.
MAX_LABELS = 20
#: Values of a mask that an error names.
_NAMED = 4
_MODES = ("1", "L", "P")


@dataclass(frozen=True, slots=True)
class MaskFile:
    """The truth of one picture: a file of its raw folder.

    Attributes:
        path: POSIX path relative to raw/.
        sha256: of the file's bytes, hexadecimal.
        shares: of each label, the share of the picture that shows it.
        size: ``small``, ``middle`` or ``large`` beside the set's others; empty where none is shown.
        png: the mask itself as base64, of outlines that stand in the file ``path``; else empty.
    """

    path: str
    sha256: str
    shares: tuple[float, ...]
    size: str = ""
    png: str = ""

    def to_truth(self) -> str:
        """`Record.truth`."""
        fields = asdict(self)
        if not self.png:
            del fields["png"]
        return json.dumps(fields)

    @classmethod
    def of(cls, truth: str) -> MaskFile:
        """What `to_truth` wrote.

        Raises:
            DataError: if that is damaged.
        """
        try:
            fields = json.loads(truth)
            return cls(**{**fields, "shares": tuple(fields["shares"])})
        except (ValueError, TypeError, KeyError) as err:
            raise DataError(
                f"manifest.csv: {truth[:60]!r} is no mask of a picture ({err!r}). Run `fieldlens "
                f"prepare` again."
            ) from err


def is_mask(path: PurePosixPath) -> bool:
    """Whether a file of the raw folder is a mask by the folders that it lies in."""
    return any(part.casefold() == MASKS for part in path.parts[:-1])


def key_of(path: PurePosixPath) -> tuple[str, ...]:
    """What a picture and its mask have in common: the path without suffix and telling folders."""
    folders = [part for part in path.parts[:-1] if part.casefold() not in {MASKS, _IMAGES}]
    return (*folders, path.stem)


def shares_of(mask: NDArray[np.uint8], n_labels: int) -> tuple[float, ...]:
    """Of each label, the share of an indexed mask that shows it, rounded to 1e-6."""
    counts = np.bincount(mask.ravel(), minlength=n_labels + 1)[1:]
    return tuple(round(float(count) / mask.size, 6) for count in counts)


# -- reading --------------------------------------------------------------------------------------
def read_mask(data: bytes, where: str, labels: Sequence[str]) -> NDArray[np.uint8]:
    """(height, width) 0 where no label is shown, else 1 + its place in ``labels``.

    Args:
        data: bytes of a PNG file.
        where: the file, for messages.
        labels: of the card.

    Raises:
        DataError: if it is no such mask: no PNG, of several channels, with grey edges, or with an
            index that no label has.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            mode, size = image.mode, image.size
            if size[0] * size[1] > max_pixels():
                raise DataError(f"{where}: {size[0]} x {size[1]} px are more than are decoded.")
            values = np.asarray(image) if mode in _MODES else None
    except DECODER_ERRORS as err:
        # Pillow names where it looked, which is another place each time.
        why = "it begins as none" if isinstance(err, UnidentifiedImageError) else err
        raise DataError(
            f"{where}: is no PNG that can be read ({why}). Expected a mask as PNG; JPEG would blur "
            f"its edges."
        ) from err
    if values is None:
        raise DataError(
            f"{where}: the mask has several channels or 16 bits (mode {mode}). Expected one of 8 "
            f"bits: {_expected(labels)}. Save it as an indexed or grey PNG."
        )
    found = np.unique(values).tolist()
    if mode == "1" or (len(labels) == 1 and set(found) <= {0, 255}):
        shown = np.asarray(values != 0)
        return shown.astype(np.uint8)
    wrong = [value for value in found if value > len(labels)]
    if not wrong:
        return np.asarray(values, dtype=np.uint8)
    named = ", ".join(map(str, wrong[:_NAMED])) + (", …" if len(wrong) > _NAMED else "")
    if len(labels) == 1 and len(found) > 2 and mode == "L":
        raise DataError(
            f"{where}: the mask has grey edges: {len(found)} values, {named} among them. Expected "
            f"{_expected(labels)}. Threshold it at 128 and save it as PNG."
        )
    raise DataError(
        f"{where}: the mask has the index {named}, which no label has. Expected "
        f"{_expected(labels)}. Mend the mask, or add the label to the card."
    )


def n_labels_of(masks: Iterable[Path]) -> int:
    """How many labels the indices of mask files speak of: 1 of masks of 0 and 255, or 0 and 1.

    Files that `read_mask` refuses count for nothing, and so do grey edges.
    """
    most = 1
    for mask in masks:
        try:
            with Image.open(mask, formats=["PNG"]) as image:
                if image.mode not in _MODES or image.width * image.height > max_pixels():
                    continue
                values = np.unique(np.asarray(image))
        except DECODER_ERRORS:
            continue
        # More are no list of labels, but a picture in grey.
        indices = values[values < 255]
        if len(indices) and indices[-1] <= MAX_LABELS:
            most = max(most, int(indices[-1]))
    return most


def _expected(labels: Sequence[str]) -> str:
    if len(labels) == 1:
        return f"0, and 255 or 1 where it shows {labels[0]}"
    named = ", ".join(f"{at} {label}" for at, label in list(enumerate(labels, 1))[:_NAMED])
    more = ", …" if len(labels) > _NAMED else ""
    return f"0 where none is shown, {named}{more}"


@dataclass(frozen=True, slots=True)
class Drawn:
    """The mask of one image, where training and measuring find it.

    Attributes:
        raw_dir: of the task.
        labels: in the order of the model's outputs, which is that of the card.
    """

    file: MaskFile
    raw_dir: Path
    labels: tuple[str, ...]

    def read(self) -> NDArray[np.uint8]:
        """(height, width) as `read_mask`, in px of the upright picture.

        Raises:
            DataError: if the file is gone, or not the one that `prepare` saw.
        """
        where = str(self.raw_dir / self.file.path)
        try:
            if self.file.png:
                data = base64.b64decode(self.file.png)
            else:
                data = read_file(self.raw_dir / self.file.path, self.file.path)
        except CorruptImageError as err:
            raise DataError(f"{where}: {err.reason}. Run `fieldlens fetch` again.") from err
        if hashlib.sha256(data).hexdigest() != self.file.sha256:
            raise DataError(
                f"{where}: the mask changed since `prepare`. Run `fieldlens prepare` again."
            )
        return read_mask(data, where, self.labels)


def drawn_masks(entries: Sequence[Entry], labels: Sequence[str], raw_dir: Path) -> list[Drawn]:
    """The masks of images."""
    return [Drawn(MaskFile.of(entry.truth), raw_dir, tuple(labels)) for entry in entries]


# -- views ----------------------------------------------------------------------------------------
def in_view(mask: NDArray[np.uint8], geometry: Geometry, side_px: int) -> NDArray[np.uint8]:
    """An indexed mask as a square view shows it.

    Where a view was turned, its picture is mirrored at the edge of the crop (`data.augment`), and
    so is the mask; what lies outside of the picture shows nothing.

    Args:
        mask: (h, w) of the upright picture.
        geometry: from px of the picture to px of the view.
        side_px: of the view.

    Returns:
        (side_px, side_px) of indices, the nearest.
    """
    places = np.arange(side_px) + 0.5
    x, y = np.meshgrid(places, places)
    x, y = _mirrored(x, y, geometry, side_px)
    back = np.linalg.inv(geometry)
    columns = np.floor(back[0, 0] * x + back[0, 1] * y + back[0, 2]).astype(np.int64)
    rows = np.floor(back[1, 0] * x + back[1, 1] * y + back[1, 2]).astype(np.int64)
    height, width = mask.shape
    is_inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = mask[rows.clip(0, height - 1), columns.clip(0, width - 1)]
    seen: NDArray[np.uint8] = np.where(is_inside, found, 0).astype(np.uint8)
    return seen


def _mirrored(
    x: NDArray[np.float64], y: NDArray[np.float64], geometry: Geometry, side_px: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places of a turned view from where its picture was taken: the crop's edge mirrors.

    A view is a crop, maybe flipped, then a turn about its middle. Which half turn is meant does not
    matter, since the crop is a square.
    """
    turn = geometry[:2, 0] / np.linalg.norm(geometry[:2, 0])
    cosine, sine = turn * (1 if turn[0] >= 0 else -1)
    if abs(sine) < 1e-9:
        return x, y
    middle = side_px / 2
    across = cosine * (x - middle) + sine * (y - middle) + middle
    down = -sine * (x - middle) + cosine * (y - middle) + middle
    # Middles of the first and the last pixel are what mirrors (OpenCV's BORDER_REFLECT_101).
    first, last = 0.5, side_px - 0.5
    across, down = (last - np.abs(last - first - np.abs(place - first)) for place in (across, down))
    back_x = cosine * (across - middle) - sine * (down - middle) + middle
    back_y = sine * (across - middle) + cosine * (down - middle) + middle
    return back_x, back_y


def covered(seen: NDArray[np.uint8], n_labels: int) -> NDArray[np.float32]:
    """(n_labels, side / STRIDE, side / STRIDE) share of each cell of a view that shows a label."""
    side = len(seen) // STRIDE
    cells = seen.reshape(side, STRIDE, side, STRIDE)
    of_labels = [(cells == number).mean(axis=(1, 3)) for number in range(1, n_labels + 1)]
    return np.stack(of_labels).astype(np.float32)

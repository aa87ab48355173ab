"""What is known of an image without a look at its subject, as tables of numbers for blind models.

A file's facts: size, mode, type, bytes, compression. A model never sees these numbers, but each
leaves a trace that it does see: resampling, grain, compression blocks, colour casts. What of it is
left once every picture went through `Preprocess` is asked too: whether it is grey, and how many
bytes it needs when all are encoded alike. What is left of the picture (border, thumbnail, colours)
is so little that no shape of a lesion, leaf or face survives in it, and is taken from the plain
view, (h, w, 3) RGB in [0, 255], so that it holds what a model could use and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.images import file_header, readable
from pipelines.data.layout import listed_files
from pipelines.data.tree import TABLES

# -- files ----------------------------------------------------------------------------------------
#: Columns of records.csv in which a publisher may state what an image was before it was scaled
#: down or encoded anew.
_ORIGINAL_COLUMNS = (
    "original_width_px",
    "original_height_px",
    "original_bytes",
    "original_mode",
)
#: Stands for a number that is not stated.
_NOT_STATED = -1.0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file, as it is stored, without its picture.

    Attributes:
        mode: Pillow's.
        format: Pillow's name of the decoder.
        suffix: of the file's name, in small letters.
        quantisation: mean of each JPEG quantisation table, in their order; empty without any.
    """

    width_px: int
    height_px: int
    mode: str
    format: str
    suffix: str
    n_bytes: int
    quantisation: tuple[float, ...]
    has_exif: bool


def file_facts(data: bytes, name: str) -> FileFacts:
    """The facts of a file that `open_image` has accepted."""
    header = file_header(readable(data, name), name)
    width_px, height_px = header.size
    return FileFacts(
        width_px=width_px,
        height_px=height_px,
        mode=header.mode,
        format=header.format,
        suffix=PurePosixPath(name).suffix.lower(),
        n_bytes=len(data),
        quantisation=header.quantisation,
        has_exif=header.has_exif,
    )


def facts_table(
    facts: Sequence[FileFacts], originals: Sequence[Mapping[str, str]]
) -> NDArray[np.float64]:
    """(n, d) facts as numbers for a forest; names (mode, type) become their place in the alphabet.

    Args:
        originals: for each file, what its publisher states (`original_facts`); may be empty.
    """
    columns = [
        [float(each.width_px) for each in facts],
        [float(each.height_px) for each in facts],
        [each.width_px / each.height_px for each in facts],
        [float(each.n_bytes) for each in facts],
        [each.n_bytes / (each.width_px * each.height_px) for each in facts],
        [float(len(each.quantisation)) for each in facts],
        [each.quantisation[0] if each.quantisation else 0.0 for each in facts],
        [each.quantisation[1] if len(each.quantisation) > 1 else 0.0 for each in facts],
        [float(each.has_exif) for each in facts],
        _codes([each.mode for each in facts]),
        _codes([each.format for each in facts]),
        _codes([each.suffix for each in facts]),
    ]
    if any(originals):
        *numbers, mode = _ORIGINAL_COLUMNS
        columns += [[_number(row.get(column, "")) for row in originals] for column in numbers]
        columns.append(_codes([row.get(mode, "") for row in originals]))
    return np.array(columns, dtype=np.float64).T


def original_facts(raw_dir: Path) -> dict[str, dict[str, str]]:
    """By path, what the table of a folder states of files before they were scaled down, if any."""
    if not any((raw_dir / name).is_file() for name in TABLES):
        return {}
    images = listed_files(raw_dir)
    columns = [name for name in _ORIGINAL_COLUMNS if images and name in images[0].cells]
    if not columns:
        return {}
    return {image.path: {name: image.cells.get(name, "") for name in columns} for image in images}


def _codes(names: Sequence[str]) -> list[float]:
    place = {name: float(index) for index, name in enumerate(sorted(set(names)))}
    return [place[name] for name in names]


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return _NOT_STATED


# -- views ----------------------------------------------------------------------------------------
#: A usual quality of photographs; high enough that the bytes tell fine detail.
_JPEG_QUALITY = 90
#: Share of each side that counts as border.
_BORDER_SHARE = 0.04
#: Pixels to which the border of one side is reduced.
_STRIP_PX = 16
#: Side of the grey thumbnail.
_THUMBNAIL_PX = 8
#: Divisions of each channel in the joint colour histogram.
_COLOUR_LEVELS = 6


class ViewFacts(NamedTuple):
    """The file that a view would be, if all were JPEGs of quality 90, which share their size."""

    is_grey: bool
    n_bytes: int


def view_facts(pixels: NDArray[np.uint8]) -> ViewFacts:
    """The facts of the file that a model's input would be."""
    buffer = io.BytesIO()
    # Always as colour, or a grey file would be smaller for its mode alone.
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return ViewFacts(bool((pixels == pixels[:, :, :1]).all()), buffer.tell())


def border(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(192,) the outermost pixels of the four sides, each side reduced to a strip of 16 colours."""
    height, width = pixels.shape[:2]
    rows = max(1, round(_BORDER_SHARE * height))
    columns = max(1, round(_BORDER_SHARE * width))
    sides = (
        pixels[:rows],
        pixels[-rows:],
        pixels[:, :columns].transpose(1, 0, 2),
        pixels[:, -columns:].transpose(1, 0, 2),
    )
    return np.concatenate([_reduced(side, (_STRIP_PX, 1)).ravel() for side in sides])


def thumbnail(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(64,) the picture as 8x8 grey pixels."""
    size = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    grey = Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX)
    return np.asarray(grey, dtype=np.uint8).ravel()


def colours(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(216,) shares of 6x6x6 colours, wherever in the picture they are."""
    level = pixels.astype(np.int64) * _COLOUR_LEVELS // 256
    cells = (level[..., 0] * _COLOUR_LEVELS + level[..., 1]) * _COLOUR_LEVELS + level[..., 2]
    counts = np.bincount(cells.ravel(), minlength=_COLOUR_LEVELS**3)
    return (counts / cells.size).astype(np.float32)


def _reduced(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    small = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.uint8)


# -- all of it ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class BlindView:
    """What is kept of one image; its subject is not."""

    facts: FileFacts
    view: ViewFacts
    border: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    colours: NDArray[np.float32]


def blind_view(data: bytes, path: str, pixels: NDArray[np.uint8]) -> BlindView:
    """What the audits see of a file, of its name, and of its plain view."""
    return BlindView(
        file_facts(data, path),
        view_facts(pixels),
        border(pixels),
        thumbnail(pixels),
        colours(pixels),
    )


def blind_features(
    views: Sequence[BlindView], originals: Sequence[Mapping[str, str]]
) -> dict[str, NDArray[np.generic]]:
    """By audit, (n, d) features of n images; ``originals`` as in `facts_table`."""
    return {
        "file_facts": facts_table([each.facts for each in views], originals),
        "border": np.stack([each.border for each in views]),
        "view_facts": np.array([each.view for each in views], dtype=np.float64),
        "thumbnail": np.stack([each.thumbnail for each in views]),
        "colour": np.stack([each.colours for each in views]),
    }

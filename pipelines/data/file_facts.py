"""What is known of an image without a look at its picture: size, mode, type, bytes, compression.

A model never sees these numbers, but each leaves a trace that it does see: resampling, grain,
compression blocks, colour casts. Called by `audit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipelines.data.image_bytes import readable
from pipelines.data.layout import read_folder
from pipelines.data.names import TABLES
from pipelines.data.opening import file_header

#: Columns of records.csv in which a publisher may state what an image was before it was scaled
#: down or encoded anew.
ORIGINAL_COLUMNS = (
    "original_width_px",
    "original_height_px",
    "original_bytes",
    "original_mode",
)
#: Stands for a number that is not stated.
_NOT_STATED = -1.0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One file without its picture.

    Attributes:
        width_px: stored width.
        height_px: stored height.
        mode: Pillow's mode as stored.
        format: Pillow's name of the decoder.
        suffix: of the file's name, in small letters.
        n_bytes: size of the file.
        quantisation: mean of each JPEG quantisation table, in their order; empty without any.
        has_exif: whether there is an EXIF block.
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
    """The facts of a file that `open_image` has accepted.

    Args:
        data: its bytes.
        name: its path, for the suffix.
    """
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
    """Facts as numbers for a forest; names (mode, type) become their place in the alphabet.

    Args:
        facts: one a file.
        originals: for each file, what its publisher states (`original_facts`); may be empty.

    Returns:
        (n, d).
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
        *numbers, mode = ORIGINAL_COLUMNS
        columns += [[_number(row.get(column, "")) for row in originals] for column in numbers]
        columns.append(_codes([row.get(mode, "") for row in originals]))
    return np.array(columns, dtype=np.float64).T


def original_facts(raw_dir: Path) -> dict[str, dict[str, str]]:
    """By path, what its table states of the files before they were scaled down; else empty.

    Args:
        raw_dir: datasets/<task>/raw; `prepare` has read its table before.
    """
    if not any((raw_dir / name).is_file() for name in TABLES):
        return {}
    images = read_folder(raw_dir).images
    columns = [name for name in ORIGINAL_COLUMNS if images and name in images[0].cells]
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

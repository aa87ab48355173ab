"""What is known of an image without a look at its subject, as tables of numbers for blind models.

A file's facts: size, mode, type, bytes, compression. A model never sees these numbers, but each
leaves a trace that it does see: resampling, grain, compression blocks, colour casts. What of it is
left once every picture went through `Preprocess` is asked too: whether it is grey, and how many
bytes it needs when all are encoded alike. Called by `audit` and `validate`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.data.images import file_header, readable
from pipelines.data.layout import read_folder
from pipelines.data.tree import TABLES

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


# -- file facts -----------------------------------------------------------------------------------
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


# -- what is left of the picture ------------------------------------------------------------------
# Each is small enough that no shape of a lesion, leaf or face survives in it, and is taken from the
# plain view, so that it holds what a model could use and nothing else.
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


# -- all of it ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class BlindView:
    """What is kept of one image; its subject is not.

    Attributes:
        facts: of the file.
        view: of the plain view, were it a file.
        border: as `border` gives it.
        thumbnail: as `thumbnail` gives it.
        colours: as `colours` gives them.
    """

    facts: FileFacts
    view: ViewFacts
    border: NDArray[np.uint8]
    thumbnail: NDArray[np.uint8]
    colours: NDArray[np.float32]


def blind_view(data: bytes, path: str, pixels: NDArray[np.uint8]) -> BlindView:
    """What the audits see of one image.

    Args:
        data: bytes of the file.
        path: of the file, for its suffix.
        pixels: the plain view, (h, w, 3) RGB in [0, 255].
    """
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
    """By audit, (n, d).

    Args:
        views: of n images.
        originals: for each, what records.csv states (`file_facts.original_facts`); may be empty.
    """
    return {
        "file_facts": facts_table([each.facts for each in views], originals),
        "border": np.stack([each.border for each in views]),
        "view_facts": np.array(
            [[each.view.mode == "L", each.view.n_bytes] for each in views], dtype=np.float64
        ),
        "thumbnail": np.stack([each.thumbnail for each in views]),
        "colour": np.stack([each.colours for each in views]),
    }

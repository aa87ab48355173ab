"""What the names in a source say: which are never images, which may be, and which name a split.

One place for `new`, `fetch`, `prepare` and `validate`: what one of them passes over, all pass
over. Content decides later: a wrong suffix does no harm.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Literal, get_args

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

#: Tables that speak for a folder, the first that is there.
TABLES = ("records.csv", "metadata.csv", "metadata.jsonl")
#: Written by `fetch` last; says where the images come from, and is no part of the source.
SOURCE_FILE = "SOURCE.json"

#: Looked at as images, by suffix in lower case.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo"}
    | {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".dcm", ".dicom"}
)

#: Pictures to a person, of kinds that are not read: a class made of them must not go unnoticed.
UNREAD_SUFFIXES = frozenset(
    {".nef", ".cr2", ".cr3", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw", ".psd"}
    | {".svg", ".exr", ".jxl", ".nii", ".mha", ".npy", ".mp4", ".mov", ".avi", ".pdf"}
)

#: Folders that systems and programs leave in people's folders: macOS, Synology, Jupyter, Windows.
_LEFT_BEHIND = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_LEFT_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})

#: What publishers call the parts of a set, in lower case.
_SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainset", "train_set", "training_set"), SPLITS[0]),
    **dict.fromkeys(("val", "valid", "validation", "validation_set", "dev"), SPLITS[1]),
    **dict.fromkeys(("test", "testing", "testset", "test_set", "testing_set"), SPLITS[2]),
}
#: An endless number, as in ``1.2.840.10008.55`` (DICOM): no suffix that would name a format.
_NUMBER = re.compile(r"\.\d*")


def passed_over(path: PurePosixPath) -> Literal["hidden", "system"] | None:
    """Why a file or folder is never an image or a class, in one word; None if it may be one.

    Args:
        path: relative to the source; each of its parts counts.

    Returns:
        ``hidden`` (a name with a dot in front, as ``.DS_Store``, ``._photo.jpg`` and
        ``.ipynb_checkpoints``), ``system`` (what macOS, Windows or a Synology disk station left
        behind), or None.
    """
    for part in path.parts:
        name = part.casefold()
        if name in _LEFT_BEHIND or name in _LEFT_FILES:
            return "system"
        if name.startswith("."):
            return "hidden"
    return None


def suffix_of(path: PurePosixPath) -> str:
    """The suffix in lower case, with its dot; empty where there is none or it is a mere number.

    Args:
        path: of a file. Without a suffix only its content can say whether it is an image
            (`pipelines.data.formats`).
    """
    suffix = path.suffix.lower()
    return "" if _NUMBER.fullmatch(suffix) else suffix


def split_named(name: str) -> Split | None:
    """The split that a folder's name, or a cell of a table, stands for; None for any other name.

    Args:
        name: e.g. ``Training``, ``valid`` or ``test``.
    """
    return _SPLIT_NAMES.get(name.strip().casefold().replace("-", "_").replace(" ", "_"))


def is_table(path: PurePosixPath) -> bool:
    """Whether a file is where a table that speaks for images lies, and called like one.

    Args:
        path: relative to the source: at its top, or in a folder that names a split.
    """
    is_place = len(path.parts) == 1 or (
        len(path.parts) == 2 and split_named(path.parts[0]) is not None
    )
    return is_place and path.name.casefold() in TABLES

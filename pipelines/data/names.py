"""What the names in a source say: which are never images, and which may be.

One place for `new`, `fetch`, `prepare` and `validate`: what one of them passes over, all pass
over. Content decides later: a wrong suffix does no harm.
"""

from __future__ import annotations

from pathlib import PurePosixPath

#: Tables that speak for a folder, the first that is there.
TABLES = ("records.csv", "metadata.csv")

#: Looked at as images, by suffix in lower case.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".mpo"}
    | {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jpx", ".dcm", ".dicom"}
)

#: Folders that systems and programs leave in people's folders: macOS, Synology, Jupyter, Windows.
_LEFT_BEHIND = frozenset({"__macosx", "@eadir", "$recycle.bin", "system volume information"})
_LEFT_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})


def passed_over(path: PurePosixPath) -> str | None:
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

"""What zip and tar have in common: members whose names, kinds and sizes are not trusted."""

from __future__ import annotations

import lzma
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.data.sources.intake import MAX_FILES, safe_path
from pipelines.errors import SourceError

#: What the standard library raises on malformed archives. NotImplementedError (a compression that
#: it does not know) and RecursionError (tar headers nested in one another) are RuntimeErrors.
FAULTS: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,
    MemoryError,
)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What no honest archive of images passes.

    Attributes:
        max_files: members, taken or not.
        max_ratio: unpacked bytes by packed bytes. JPEG and PNG stay near 1, plain BMP and TIFF
            scans below 50; deflate's own limit is 1,032 and a bomb is near it.
        ratio_from_bytes: below so many unpacked bytes the ratio does no harm.
    """

    max_files: int = MAX_FILES
    max_ratio: float = 200.0
    ratio_from_bytes: int = 100_000_000


class Names:
    """The names of an archive's members: safe, each once, and relative to the subfolder."""

    def __init__(self, what: str, prefix: tuple[str, ...], bounds: Bounds) -> None:
        self._what = what
        self._prefix = prefix
        self._max_files = bounds.max_files
        self._seen: set[str] = set()
        self._tops: set[str] = set()
        self._is_found = not prefix

    def place(self, name: str, *, is_dir: bool) -> PurePosixPath | None:
        """Where a member goes; None for a folder and for what is outside the subfolder."""
        path = safe_path(name, self._what)
        if path.parts:
            self._tops.add(path.parts[0])
        if is_dir:
            return None
        if str(path) in self._seen:
            raise SourceError(
                f"{self._what}: two members are called {str(path)!r}. Expected each name once; "
                f"repack the archive."
            )
        self._seen.add(str(path))
        if len(self._seen) > self._max_files:
            raise SourceError(
                f"{self._what}: the archive holds more than {self._max_files:,} files."
            )
        depth = len(self._prefix)
        if path.parts[:depth] != self._prefix or len(path.parts) == depth:
            return None
        self._is_found = True
        return PurePosixPath(*path.parts[depth:])

    def check_found(self) -> None:
        """Nothing, if a file lay below the subfolder."""
        if not self._is_found:
            tops = ", ".join(repr(top) for top in sorted(self._tops)[:5]) or "nothing"
            raise SourceError(
                f"{self._what}: the archive has no file below {'/'.join(self._prefix)!r}. It holds "
                f"{tops}; mend `source.subfolder` in params.yaml."
            )


def check_ratio(what: str, unpacked: int, packed: int, bounds: Bounds) -> None:
    """Nothing, if an archive unpacks as images do.

    Args:
        what: the task, for the message.
        unpacked: bytes so far, or in all.
        packed: size of the archive in bytes.
        bounds: the ratio that is allowed.

    Raises:
        SourceError: if it unpacks to much more.
    """
    if unpacked > bounds.ratio_from_bytes and unpacked > bounds.max_ratio * packed:
        raise SourceError(
            f"{what}: the archive unpacks to more than {bounds.max_ratio:.0f} times its size, as "
            f"no set of images does. Nothing was taken from it."
        )


def refused(what: str, name: str, kind: str) -> SourceError:
    """The error for a member that is not a plain file.

    Args:
        what: the task.
        name: of the member.
        kind: what it is instead, e.g. ``a link``.
    """
    return SourceError(
        f"{what}: {name!r} is {kind}. Expected plain files only; nothing was taken from the "
        f"archive."
    )

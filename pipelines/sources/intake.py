"""The one door into a raw folder: safe names, images and tables only, bounded, all accounted for.

A source is not trusted: its file names are checked by `safe_path`, its bytes are counted, and
nothing that it holds is opened or run here. Sources of many remote files bring them side by side,
by `take_all`: what has arrived stays in the cache when another fails.
"""

from __future__ import annotations

import errno
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeVar

from pipelines.card import Picked
from pipelines.data.account import Account
from pipelines.data.tree import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    is_image,
    is_table,
    passed_over,
    suffix_of,
)
from pipelines.errors import SourceError
from pipelines.progress import track
from pipelines.sources.download import read_chunks

#: What a source tells about itself for SOURCE.json.
Facts = dict[str, str | int]

#: More files than any public set of images has; a larger number is an attack or a mistake.
MAX_FILES = 2_000_000
#: Deeper trees would meet the limit of recursive functions, such as the one that removes a folder.
MAX_DEPTH = 64
#: Linux's limit for one name, and room for a project root below PATH_MAX (4,096).
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 2_048
_DRIVE = re.compile(r"[A-Za-z]:")


def safe_path(name: str, where: str) -> PurePosixPath:
    r"""A file name from outside as a relative path that cannot leave its folder.

    A backslash separates, as in archives made on Windows. Empty parts and ``.`` are dropped.

    Args:
        where: the source, for the message.

    Returns:
        A path without ``..``; without parts if ``name`` means the folder itself.

    Raises:
        SourceError: if it is absolute, holds ``..``, a drive letter or NUL, or is too long.
    """
    unified = name.replace("\\", "/")
    parts = [part for part in unified.split("/") if part not in {"", "."}]
    try:
        lengths = [len(part.encode("utf-8", "surrogateescape")) for part in parts]
    except UnicodeEncodeError:
        raise _unsafe(name, where, "is not a name that a file can have") from None
    if unified.startswith("/"):
        raise _unsafe(name, where, "is absolute")
    if ".." in parts:
        raise _unsafe(name, where, "climbs out of its folder")
    if parts and _DRIVE.match(parts[0]):
        raise _unsafe(name, where, "names a drive")
    if "\0" in name:
        raise _unsafe(name, where, "holds a NUL")
    if max(lengths, default=0) > _MAX_NAME_BYTES or sum(lengths) + len(parts) > _MAX_PATH_BYTES:
        raise _unsafe(f"{name[:40]}...", where, "is too long")
    return PurePosixPath(*parts)


def _unsafe(name: str, where: str, fault: str) -> SourceError:
    return SourceError(
        f"{where}: the file name {name!r} {fault}. Expected relative names inside the source; "
        f"nothing was taken from it."
    )


class Intake:
    """A raw folder that is being filled.

    Attributes:
        what: the task, for messages.
        skipped: files that were not taken, by reason; each file of a source is here or in
            ``n_files``. ``hidden`` and ``system`` as `passed_over` has them; ``link``,
            ``dangling link``, ``link loop`` and ``special`` (devices, pipes); ``left out`` and
            ``unlabelled`` by the source's own patterns; ``other``.
    """

    def __init__(
        self,
        folder: Path,
        what: str,
        *,
        max_bytes: int,
        max_files: int = MAX_FILES,
        picked: Picked | None = None,
        truth: frozenset[str] = frozenset(),
    ) -> None:
        """Begin with an empty folder.

        Args:
            truth: suffixes of files that hold truth of the task's kind, taken as they are.
        """
        self._truth = truth
        self.folder = folder
        self.what = what
        self.skipped: Counter[str] = Counter()
        self.n_files = 0
        self.n_bytes = 0
        self.max_files = max_files
        self._max_bytes = max_bytes
        self._picked = picked or Picked()
        self._others: Counter[str] = Counter()
        #: Names as a disk may see them that knows neither letter case nor Unicode's forms.
        self._names: dict[str, str] = {}

    def wants(self, path: PurePosixPath) -> bool:
        """Whether a file may be an image by its name, or is a table; what is neither is counted.

        Args:
            path: relative, from `safe_path`.
        """
        reason: str | None = passed_over(path)
        if reason is None and any(fnmatchcase(str(path), p) for p in self._picked.leave_out):
            reason = "left out"
        if reason is None and self._picked.labels and self._label(path) is None:
            reason = "unlabelled"
        # Without a suffix its content will tell.
        may_be_image = suffix_of(path) in IMAGE_SUFFIXES | self._truth | {""}
        if reason is None and not may_be_image and (self._picked.labels or not is_table(path)):
            reason = "other"
            self._others[suffix_of(path)] += 1
        if reason is not None:
            self.skipped[reason] += 1
        return reason is None

    def _label(self, path: PurePosixPath) -> str | None:
        labels = self._picked.labels
        return next((labels[p] for p in labels if fnmatchcase(str(path), p)), None)

    def add(self, path: PurePosixPath, chunks: Iterable[bytes]) -> None:
        """Write one file; of one without a suffix, only if it begins as a picture does.

        Its name is written in Unicode's composed form (NFC): macOS hands out the other one.

        Args:
            path: relative, from `safe_path`, and one that `wants` has let in.

        Raises:
            SourceError: if the name is taken already, or a bound is passed.
            OSError: if the disk is full; `atomic.new_folder` says so.
        """
        chunks = iter(chunks)
        if not suffix_of(path):
            head = b""
            for chunk in chunks:
                head += chunk
                if len(head) >= HEAD_BYTES:
                    break
            chunks = itertools.chain([head], chunks)
            if not is_image(head[:HEAD_BYTES]):
                # To the end, for what follows in a stream.
                for _ in chunks:
                    pass
                self.skipped["other"] += 1
                self._others["no suffix"] += 1
                return
        self.n_files += 1
        if self.n_files > self.max_files:
            raise self.too_many()
        self.check_depth(path)
        label = self._label(path)
        named = path if label is None else PurePosixPath(label, path)
        target = self.folder / unicodedata.normalize("NFC", str(named))
        twin = self._names.setdefault(target.as_posix().casefold(), str(path))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            stream = target.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise self._taken(str(path), twin) from None
        except OSError as err:
            # A file system may allow less than `safe_path` does.
            if err.errno != errno.ENAMETOOLONG:
                raise
            raise SourceError(
                f"{self.what}: the file name {str(path)!r} is too long for this disk. Shorten it "
                f"in the source."
            ) from err
        with stream:
            for chunk in chunks:
                self.check_room(len(chunk))
                self.n_bytes += len(chunk)
                stream.write(chunk)

    def _taken(self, name: str, twin: str) -> SourceError:
        if name != twin:
            return SourceError(
                f"{self.what}: {twin!a} and {name!a} are one name on this disk: they "
                f"differ in letter case or in Unicode's form of an accent only. Rename one of "
                f"them in the source."
            )
        return SourceError(
            f"{self.what}: two entries are called {name!r}, or one is a folder of the "
            f"other. Expected each name once; repack the source."
        )

    def too_many(self) -> SourceError:
        """The error for a source with more files than are taken."""
        return SourceError(
            f"{self.what}: more than {self.max_files:,} files. Split the source, or name a part "
            f"of it."
        )

    @property
    def account(self) -> Account:
        """All files of the source, each counted once: taken, or passed over by kind."""
        kinds = Counter({(kind, ""): n for kind, n in self.skipped.items() if kind != "other"})
        kinds += Counter({("no images", suffix): n for suffix, n in self._others.items()})
        return Account(Counter({"taken": self.n_files}), Counter(), kinds, Counter())

    def check_depth(self, path: PurePosixPath) -> None:
        """SourceError, if the relative path of a file or a folder is deeper than `MAX_DEPTH`."""
        if len(path.parts) > MAX_DEPTH:
            raise SourceError(
                f"{self.what}: {path.name!r} lies more than {MAX_DEPTH} folders deep. Expected a "
                f"folder a class."
            )

    def check_room(self, n_bytes: int) -> None:
        """SourceError, if so many bytes more would pass the bound."""
        if self.n_bytes + n_bytes > self._max_bytes:
            raise SourceError(
                f"{self.what}: holds more than {self._max_bytes:,} bytes. If that is right, raise "
                f"`max_bytes` of the source in params.yaml, or take a part of it."
            )


# -- many files side by side ----------------------------------------------------------------------
#: Few, so that a publisher's server is not pressed.
_WORKERS = 4
#: After so many failures the list, the server or the line is broken, not a file.
_MAX_FAILURES = 25

Item = TypeVar("Item")


def take_all(
    files: Sequence[tuple[PurePosixPath, Item]],
    bring: Callable[[Item], Path],
    intake: Intake,
    next_step: str,
) -> None:
    """Bring files into the cache, and take them once all of them are there.

    Args:
        files: each with the path that it is taken under.
        bring: brings one into the cache, unless it is there; called in several threads.
        next_step: for the message, e.g. ``mend the list``.

    Raises:
        SourceError: if any cannot be brought, or all are too large; names the first three.
    """
    failures: list[str] = []
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        places = [pool.submit(bring, item) for _, item in files]
        n_bytes = 0
        for future in track(as_completed(places), f"{intake.what}: fetching", len(places)):
            try:
                n_bytes += future.result().stat().st_size
            except SourceError as err:
                failures.append(str(err))
                if len(failures) >= _MAX_FAILURES:
                    break
            else:
                intake.check_room(n_bytes)
    finally:
        pool.shutdown(cancel_futures=True)
    if failures:
        rest = f" and {len(failures) - 3} more" if len(failures) > 3 else ""
        stopped = " The rest was not tried." if len(failures) >= _MAX_FAILURES else ""
        raise SourceError(
            f"{intake.what}: {len(failures)} of {len(files)} images cannot be fetched: "
            f"{' | '.join(sorted(failures)[:3])}{rest}.{stopped} What has arrived is kept: "
            f"{next_step}, or run the same command again."
        )
    for (path, _), future in zip(files, places, strict=True):
        with future.result().open("rb") as stream:
            fault = f"{future.result().name}: cannot be read from the cache"
            intake.add(path, read_chunks(stream.read, fault))

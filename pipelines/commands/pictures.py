"""Which files a command line means: files, folders and patterns, by the rules of one reader.

A file that is named is taken as it is. Of folders and patterns, what a name says is no image is
passed over and counted (`pipelines.data.tree`).
"""

from __future__ import annotations

import fnmatch
import glob
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pipelines.columns import shown
from pipelines.data.tree import Kind, files_of, kind_of
from pipelines.errors import DataError

#: What each kind that is passed over is, in words.
_WORDS: dict[Kind, str] = {
    "table": "tables",
    "other": "not images by their names",
    "hidden": "hidden",
    "system": "left behind by a system",
    "dangling": "links to nothing",
    "loop": "links in a circle",
    "special": "no regular files",
}


@dataclass(slots=True)
class Meant:
    """What a command line means.

    Attributes:
        files: in the order of the arguments, within a folder by name; once, unless a file is named
            itself, which counts each time.
        n_passed_over: by kind, as `pipelines.data.tree` says it.
        complaints: arguments that mean nothing, each with the reason.
    """

    files: list[Path] = field(default_factory=list)
    n_passed_over: Counter[Kind] = field(default_factory=Counter)
    complaints: list[tuple[Path, str]] = field(default_factory=list)

    @property
    def note(self) -> str:
        """One line on what was passed over; empty where nothing was."""
        kinds = [f"{n:,} {_WORDS[kind]}" for kind, n in self.n_passed_over.items() if n]
        return f"passed over {self.n_passed_over.total():,}: {', '.join(kinds)}" if kinds else ""


def meant_by(arguments: Sequence[Path]) -> Meant:
    """The files that arguments mean.

    Args:
        arguments: files, folders (looked through with all below them), and patterns as the shell
            has them, where ``**`` stands for any number of folders. What exists under the very
            name is that, whatever signs it has.
    """
    meant, seen = Meant(), set[Path]()
    for argument in arguments:
        is_empty = True
        try:
            for file, kind in _candidates(argument):
                is_empty = False
                if file in seen and file is not argument:
                    continue
                seen.add(file)
                if kind == "image":
                    meant.files.append(file)
                else:
                    meant.n_passed_over[kind] += 1
        except DataError as err:
            meant.complaints.append((argument, str(err)))
            continue
        if is_empty:
            what = "holds no file" if argument.is_dir() else "no file has such a name"
            meant.complaints.append((argument, f"{shown(str(argument))}: {what}."))
    return meant


def _means_itself(argument: Path) -> bool:
    return not argument.is_dir() and (
        argument.exists() or argument.is_symlink() or not glob.has_magic(str(argument))
    )


def _candidates(argument: Path) -> Iterator[tuple[Path, Kind]]:
    if argument.is_dir():
        yield from ((argument / file.path, file.kind) for file in files_of(argument))
    elif _means_itself(argument):
        # What is not there is refused where it is opened, with its reason.
        yield argument, "image"
    else:
        yield from _fitting(argument)


def _fitting(pattern: Path) -> Iterator[tuple[Path, Kind]]:
    n_plain = next(at for at, part in enumerate(pattern.parts) if glob.has_magic(part))
    top, wanted = Path(*pattern.parts[:n_plain]), pattern.parts[n_plain:]
    if "**" in wanted:
        # Not by `glob`, which goes round and round in links that lead back.
        if top.is_dir():
            for file in files_of(top):
                if _fits(file.path.parts, wanted):
                    yield top / file.path, file.kind
        return
    for path in sorted(top.glob("/".join(wanted))):
        if path.is_dir():
            yield from _candidates(path)
        else:
            yield path, kind_of(path, PurePosixPath(*path.parts[n_plain:]))


def _fits(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a pattern names a file, or a folder around it."""
    if not wanted:
        return True
    if wanted[0] == "**":
        return _fits(parts, wanted[1:]) or (bool(parts) and _fits(parts[1:], wanted))
    is_first = bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0])
    return is_first and _fits(parts[1:], wanted[1:])

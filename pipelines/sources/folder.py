"""Images from a folder of this machine: a folder a class, or a table.

A folder of links is a usual data set: links to files and folders are followed, wherever they lead,
and what is copied is content. A link that leads nowhere, or back to a folder that it lies in, is
passed over and counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipelines.card import FolderSource
from pipelines.data.tree import passed_over
from pipelines.errors import SourceError
from pipelines.progress import track
from pipelines.sources.download import is_address, read_chunks, reason, source_faults
from pipelines.sources.intake import Facts, Intake

#: A folder has no `max_bytes` in params.yaml; this stops a copy of somebody's whole disk.
MAX_BYTES = 100_000_000_000

_NEXT_STEP = "Mend the permission or take the file away, then run the same command again"


def fetch_folder(source: FolderSource, intake: Intake, root: Path) -> Facts:
    """Copy the images of a folder.

    Args:
        root: project root, for a relative path.

    Returns:
        The folder's last name.

    Raises:
        SourceError: if it is not a folder, holds too many files, or one of its files or folders
            cannot be read.
    """
    if is_address(source.path):
        raise SourceError(
            f"{intake.what}: `source.path` is an address. Name a folder of a store as `kind: "
            f"store`, an archive as `kind: archive`, each with `location`."
        )
    top = (root / source.path).resolve()
    if not top.is_dir():
        raise SourceError(
            f"{intake.what}: there is no folder {source.path!r}. Mend `source.path` in params.yaml."
        )
    wanted = [(path, file) for path, file in _walk(top, intake) if intake.wants(path)]
    for path, file in track(wanted, f"{intake.what}: copying", len(wanted)):
        fault = f"{str(file)!r}: the file cannot be read. {_NEXT_STEP}"
        with source_faults(fault):
            stream = file.open("rb")
        with stream:
            intake.add(path, read_chunks(stream.read, fault))
    return {"folder": top.name or "folder"}


def _walk(top: Path, intake: Intake) -> Iterator[tuple[PurePosixPath, Path]]:
    """Files below a folder, in sorted order, each with its place; what else there is is counted."""
    n_seen = 0
    # By folder, the real paths of those around it and of itself.
    ways: dict[str, tuple[str, ...]] = {str(top): (str(top),)}
    for place, folders, names in os.walk(top, onerror=_stop, followlinks=True):
        here = PurePosixPath(place).relative_to(top)
        intake.check_depth(here)
        n_seen += len(folders) + len(names)
        if n_seen > intake.max_files:
            raise intake.too_many()
        way, inner = ways.pop(place), sorted(folders)
        folders.clear()
        for name in inner:
            real = os.path.realpath(f"{way[-1]}/{name}")
            if kind := passed_over(here / name):
                intake.skipped[kind] += sum(len(files) for _, _, files in os.walk(real))
            elif real in way:
                intake.skipped["link loop"] += 1
            else:
                folders.append(name)
                ways[os.path.join(place, name)] = (*way, real)  # noqa: PTH118 - as os.walk does
        for name in sorted(names):
            file = Path(way[-1], name)
            with source_faults(
                f"{str(file)!r}: the link cannot be followed", next_step=f"{_NEXT_STEP}."
            ):
                is_file, is_there = file.is_file(), file.exists()
            if is_file:
                yield here / name, file
            else:
                intake.skipped["special" if is_there else "dangling link"] += 1


def _stop(err: OSError) -> None:
    raise SourceError(
        f"{err.filename!r}: the folder cannot be read ({reason(err)}). {_NEXT_STEP}."
    ) from err

"""Images from a store that fsspec knows: S3, Google Cloud, Azure, SFTP, the Hugging Face Hub.

fsspec lists and reads; the rest is here: which stores, sizes before bytes, a bounded listing, files
that are taken up where they broke off, and messages without credentials. Credentials are those of
this machine, as each store's own tools find them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.atomic import storage_errors
from pipelines.config_sources import StoreSource
from pipelines.data.sources.intake import MAX_DEPTH, Facts, Intake, safe_path
from pipelines.data.sources.several import bring_all, read_cached
from pipelines.data.sources.store_access import Store, open_store, told
from pipelines.data.sources.streams import CHUNK_BYTES
from pipelines.errors import SourceError
from pipelines.locks import hold

#: Read at a time from a store, and held in memory by each of a few threads.
_BLOCK_BYTES = 4 * CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class _Remote:
    path: PurePosixPath
    info: dict[str, Any]


def fetch_store(source: StoreSource, intake: Intake, downloads_dir: Path) -> Facts:
    """Take the images of a folder in a store.

    Args:
        source: names it.
        intake: takes the files.
        downloads_dir: where what has arrived is kept.

    Returns:
        The location, and the commit where there is one.

    Raises:
        SourceError: if it cannot be read, is a file, or holds too many files or bytes; before any
            byte is written where the store tells sizes.
        StorageError: if the disk is full.
    """
    store = open_store(source.location, intake.what, anonymous=source.anonymous)
    found = list(_list(store, intake))
    wanted = [remote for remote in found if intake.wants(remote.path)]
    intake.check_room(sum(remote.info.get("size") or 0 for remote in wanted))
    folder = downloads_dir / f"store-{hashlib.sha256(source.location.encode()).hexdigest()[:16]}"

    def bring(remote: _Remote) -> Path:
        return pull(store, remote.info, folder, intake.what, source.max_bytes)

    with hold(folder.with_suffix(".lock"), f"fetch {intake.what}"):
        places = bring_all(wanted, bring, intake, "mend what they name")
        for remote, place in zip(wanted, places, strict=True):
            intake.add(remote.path, read_cached(place))
    return {"store": store.name, **store.facts}


def _list(store: Store, intake: Intake) -> Iterator[_Remote]:
    """Files below a folder; counts links, and stops at the bound before the next folder."""
    n_found = 0
    with told(intake.what, store.name):
        walk = store.fs.walk(store.path, detail=True, maxdepth=MAX_DEPTH + 1, on_error="raise")
        for folder, _, files in walk:
            for name, info in sorted(files.items()):
                if not name or info["name"].endswith("/"):
                    continue  # An empty object that stands for a folder.
                if info["type"] != "file":
                    intake.skipped["link" if info["type"] == "link" else "special"] += 1
                    continue
                n_found += 1
                if n_found > intake.max_files:
                    raise intake.too_many()
                below = f"{folder}/{name}"[len(store.path) :]
                yield _Remote(safe_path(below.lstrip("/"), intake.what), info)
        if not n_found:
            is_file = store.fs.isfile(store.path)
            raise SourceError(
                f"{intake.what}: {store.name} "
                + (
                    "is a file. Name an archive as `kind: archive`, with `location`."
                    if is_file
                    else "holds no file. Mend `source.location` in params.yaml."
                )
            )


def pull_file(store: Store, folder: Path, what: str, max_bytes: int) -> Path:
    """Where the bytes of the file at a store's location lie, as `pull`.

    Args:
        store: a file.
        folder: where it is kept.
        what: the task, for messages.
        max_bytes: of the whole file.

    Raises:
        SourceError: as `pull`, or if it is a folder.
        StorageError: as `pull`.
    """
    with told(what, store.name):
        info = store.fs.info(store.path)
    if info["type"] != "file":
        raise SourceError(
            f"{what}: {store.name} is a folder. Name a folder as `kind: store`, with `location`."
        )
    return pull(store, info, folder, what, max_bytes)


def pull(store: Store, info: dict[str, Any], folder: Path, what: str, max_bytes: int) -> Path:
    """Where the bytes of a file in a store lie, after what was missing has been fetched.

    Args:
        store: whose file.
        info: of the file, by fsspec.
        folder: where it is kept, under a name of its place and version.
        what: the task, for messages.
        max_bytes: of the whole file.

    Raises:
        SourceError: if it cannot be read, is too large or ends early; what has arrived stays.
        StorageError: if the disk is full.
    """
    size = info.get("size")
    if size is not None and size > max_bytes:
        raise SourceError(
            f"{what}: {info['name']!r} has {size:,} bytes, more than {max_bytes:,}. If that is "
            f"right, raise `max_bytes` of the source in params.yaml."
        )
    # When it was last read is no fact of a file.
    version = sorted((key, str(value)) for key, value in info.items() if key != "time")
    target = folder / hashlib.sha256(f"{store.name}\n{version}".encode()).hexdigest()
    if target.is_file():
        return target
    part = target.with_suffix(".part")
    with storage_errors(part):
        folder.mkdir(parents=True, exist_ok=True)
        stream = part.open("ab")
    with stream:
        have = stream.tell()
        for chunk in _read(store, info["name"], have, size, what):
            have += len(chunk)
            if have > max_bytes or (size is not None and have > size):
                part.unlink()
                raise SourceError(
                    f"{what}: {info['name']!r} has more bytes than the store has told, or than "
                    f"{max_bytes:,}."
                )
            with storage_errors(part):
                stream.write(chunk)
    if size is not None and have != size:
        raise SourceError(
            f"{what}: {info['name']!r} ended after {have:,} of {size:,} bytes. What has arrived "
            f"is kept: run the same command again."
        )
    with storage_errors(target):
        part.replace(target)
    return target


def _read(store: Store, path: str, start: int, size: int | None, what: str) -> Iterator[bytes]:
    if size == start:
        return
    name = f"{store.name.partition('://')[0]}://{path}"
    with told(what, name):
        remote = store.fs.open(path, "rb", block_size=_BLOCK_BYTES)
    try:
        if start:
            with told(what, name):
                remote.seek(start)
        while True:
            with told(what, name):
                chunk = remote.read(CHUNK_BYTES)
            if not chunk:
                return
            yield chunk
    finally:
        remote.close()

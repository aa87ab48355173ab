"""Images from a store that fsspec knows: S3, Google Cloud, Azure, SFTP, the Hugging Face Hub.

fsspec lists and reads; the rest is here: which stores, sizes before bytes, a bounded listing, files
that are taken up where they broke off, and messages without credentials. Credentials are those of
this machine, as each store's own tools find them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipelines.atomic import storage_errors
from pipelines.card import StoreSource
from pipelines.errors import PipelineError, SourceError
from pipelines.locks import hold
from pipelines.sources.download import CHUNK_BYTES, public_name, public_words, reason
from pipelines.sources.intake import MAX_DEPTH, Facts, Intake, safe_path, take_all

#: Read at a time from a store, and held in memory by each of a few threads.
_BLOCK_BYTES = 4 * CHUNK_BYTES
#: By scheme, what to install for it.
_STORES = {
    "s3": "pip install 'fieldlens[s3]'",
    "gs": "pip install gcsfs",
    "az": "pip install adlfs",
    "sftp": "pip install paramiko",
    "hf": "pip install huggingface_hub",
}


@dataclass(frozen=True, slots=True)
class Store:
    """A file or folder in a store.

    Attributes:
        fs: fsspec's file system.
        path: as ``fs`` knows it.
        name: the location without credentials.
        facts: what tells the version, where the store has one: the commit of a Hub repository.
    """

    fs: Any
    path: str
    name: str
    facts: Facts


def is_store(location: str) -> bool:
    """Whether a location is an address in one of the stores."""
    return location.partition("://")[0] in _STORES and "://" in location


def open_store(location: str, what: str, *, anonymous: bool) -> Store:
    """A location in a store, whether there is anything or not.

    Args:
        what: the task, for messages.
        anonymous: whether to ask as nobody.

    Raises:
        SourceError: if the scheme is not known, its package is not installed, the location carries
            a password, or the store cannot be opened.
    """
    name = public_name(location)
    if not is_store(location) or "::" in location:
        # fsspec chains file systems by "::", local ones too.
        raise SourceError(
            f"{what}: source.location: expected {', '.join(f'{key}://' for key in _STORES)} and a "
            f"bucket or host (got {name!r})."
        )
    scheme = location.partition("://")[0]
    if urlsplit(location).password or (scheme != "sftp" and urlsplit(location).username):
        raise SourceError(
            f"{what}: {name} carries a user name or a password, which have no place in "
            f"params.yaml. Let the environment hold them, as the store's own tools expect it."
        )
    try:
        from fsspec.core import url_to_fs

        options = _options(scheme, anonymous=anonymous)
        with _store_faults(what, name):
            fs, path = url_to_fs(location, skip_instance_cache=True, **options)
            if scheme == "hf":
                path, facts = _pinned(fs, path)
                return Store(fs, path, name, facts)
    except ImportError as err:
        raise SourceError(
            f"{what}: {scheme}:// needs a package that is not installed ({reason(err)}): "
            f"{_STORES[scheme]}."
        ) from err
    return Store(fs, path.rstrip("/"), name, {})


def _options(scheme: str, *, anonymous: bool) -> dict[str, Any]:
    match scheme:
        case "s3" | "az":
            return {"anon": True} if anonymous else {}
        case "gs":
            return {"token": "anon"} if anonymous else {}
        case "hf":
            _guard_hub()
            token = {"token": False} if anonymous else {}
            return {"endpoint": os.environ.get("HF_ENDPOINT"), **token}
        case _:
            return {"host_key_policy": _known_hosts()}


def _known_hosts() -> Any:
    """What refuses a host that is not known; fsspec's own default takes any for the right one."""
    import paramiko

    class KnownHosts(paramiko.MissingHostKeyPolicy):  # type: ignore[misc,unused-ignore]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            path = Path.home() / ".ssh/known_hosts"
            known = paramiko.HostKeys(str(path) if path.is_file() else None)
            if not known.check(hostname, key):
                raise paramiko.SSHException(
                    f"the key of {hostname} is not in ~/.ssh/known_hosts; connect once by ssh, "
                    f"and look at it"
                )

    return KnownHosts()


def _guard_hub() -> None:
    """Let the Hub's client follow redirects, but none from https to http."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    def refuse(response: Any) -> None:
        target = response.headers.get("location", "")
        if response.url.scheme == "https" and target.startswith("http:"):
            raise SourceError(
                f"{public_name(str(response.url))}: redirects from https to http, where anybody "
                f"could change the file."
            )

    def make() -> Any:
        client = default_client_factory()
        client.event_hooks = {**client.event_hooks, "response": [refuse]}
        return client

    set_client_factory(make)


def _pinned(fs: Any, path: str) -> tuple[str, Facts]:
    """A path of the Hub at the commit that its revision means now."""
    from huggingface_hub import HfApi

    found = fs.resolve_path(path)
    api = HfApi(endpoint=fs.endpoint, token=fs.token)
    told = api.repo_info(found.repo_id, repo_type=found.repo_type, revision=found.revision)
    kind = "" if found.repo_type == "model" else f"{found.repo_type}s/"
    pinned = f"{kind}{found.repo_id}@{told.sha}/{found.path_in_repo}"
    return pinned.rstrip("/"), {"revision": found.revision, "commit": str(told.sha)}


@contextmanager
def _store_faults(what: str, name: str) -> Iterator[None]:
    """One line for whatever a store's library raises, without what it may say of secrets."""
    try:
        yield
    except (PipelineError, ImportError):
        raise
    except FileNotFoundError as err:
        raise SourceError(
            f"{what}: there is nothing at {name} that this machine may see. Mend `source.location` "
            f"in params.yaml; for what is not public, check the credentials."
        ) from err
    except Exception as err:
        raise SourceError(
            f"{what}: {name}: {type(err).__name__}: {public_words(reason(err))}. Check the "
            f"location, the line and the credentials of this machine (`anonymous: true` for a "
            f"public bucket); what has arrived is kept."
        ) from err


# -- files ----------------------------------------------------------------------------------------
def fetch_store(source: StoreSource, intake: Intake, downloads_dir: Path) -> Facts:
    """Take the images of a folder in a store.

    Args:
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
    wanted = [(path, info) for path, info in found if intake.wants(path)]
    intake.check_room(sum(info.get("size") or 0 for _, info in wanted))
    folder = downloads_dir / f"store-{hashlib.sha256(source.location.encode()).hexdigest()[:16]}"

    def bring(info: dict[str, Any]) -> Path:
        return _pull(store, info, folder, intake.what, source.max_bytes)

    with hold(folder.with_suffix(".lock"), f"fetch {intake.what}"):
        take_all(wanted, bring, intake, "mend what they name")
    return {"store": store.name, **store.facts}


def _list(store: Store, intake: Intake) -> Iterator[tuple[PurePosixPath, dict[str, Any]]]:
    """Files below a folder and what fsspec tells of them; stops at the bound."""
    n_found = 0
    with _store_faults(intake.what, store.name):
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
                yield safe_path(below.lstrip("/"), intake.what), info
        if not n_found:
            fault = "holds no file. Mend `source.location` in params.yaml."
            if store.fs.isfile(store.path):
                fault = "is a file. Name an archive as `kind: archive`, with `location`."
            raise SourceError(f"{intake.what}: {store.name} {fault}")


def pull_file(store: Store, folder: Path, what: str, max_bytes: int) -> Path:
    """Where the bytes of the file at a store's location lie, as `_pull`; a folder is refused."""
    with _store_faults(what, store.name):
        info = store.fs.info(store.path)
    if info["type"] != "file":
        raise SourceError(
            f"{what}: {store.name} is a folder. Name a folder as `kind: store`, with `location`."
        )
    return _pull(store, info, folder, what, max_bytes)


def _pull(store: Store, info: dict[str, Any], folder: Path, what: str, max_bytes: int) -> Path:
    """Where the bytes of a file in a store lie, after what was missing has been fetched.

    Args:
        info: of the file, by fsspec.
        folder: where it is kept, under a name of its place and version.
        what: the task, for messages.

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
    with storage_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            have = stream.tell()
            for chunk in _read(store, info["name"], have, size, what):
                have += len(chunk)
                if have > max_bytes or (size is not None and have > size):
                    part.unlink()
                    raise SourceError(
                        f"{what}: {info['name']!r} has more bytes than the store has told, or than "
                        f"{max_bytes:,}."
                    )
                stream.write(chunk)
        if size is not None and have != size:
            raise SourceError(
                f"{what}: {info['name']!r} ended after {have:,} of {size:,} bytes. What has "
                f"arrived is kept: run the same command again."
            )
        part.replace(target)
    return target


def _read(store: Store, path: str, start: int, size: int | None, what: str) -> Iterator[bytes]:
    if size == start:
        return
    name = f"{store.name.partition('://')[0]}://{path}"
    with (
        _store_faults(what, name),
        store.fs.open(path, "rb", block_size=_BLOCK_BYTES) as remote,
    ):
        if start:
            remote.seek(start)
        while chunk := remote.read(CHUNK_BYTES):
            yield chunk

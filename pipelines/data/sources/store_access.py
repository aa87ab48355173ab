"""Opening a store that fsspec knows, by this machine's credentials, which no message tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.data.sources.addresses import public_name, public_words
from pipelines.data.sources.intake import Facts
from pipelines.data.sources.streams import reason
from pipelines.errors import PipelineError, SourceError

#: By scheme, what to install for it.
STORES = {
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
    """Whether a location is an address in one of the stores.

    Args:
        location: from params.yaml.
    """
    return location.partition("://")[0] in STORES and "://" in location


def open_store(location: str, what: str, *, anonymous: bool) -> Store:
    """A location in a store, whether there is anything or not.

    Args:
        location: ``scheme://…``.
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
            f"{what}: source.location: expected {', '.join(f'{key}://' for key in STORES)} and a "
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
        with told(what, name):
            fs, path = url_to_fs(location, skip_instance_cache=True, **options)
            if scheme == "hf":
                path, facts = _pinned(fs, path)
                return Store(fs, path, name, facts)
    except ImportError as err:
        raise SourceError(
            f"{what}: {scheme}:// needs a package that is not installed ({reason(err)}): "
            f"{STORES[scheme]}."
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
            known = paramiko.HostKeys()
            if (path := Path.home() / ".ssh/known_hosts").is_file():
                known.load(str(path))
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
    commit = str(
        api.repo_info(found.repo_id, repo_type=found.repo_type, revision=found.revision).sha
    )
    kind = "" if found.repo_type == "model" else f"{found.repo_type}s/"
    pinned = f"{kind}{found.repo_id}@{commit}/{found.path_in_repo}"
    return pinned.rstrip("/"), {"revision": found.revision, "commit": commit}


@contextmanager
def told(what: str, name: str) -> Iterator[None]:
    """One line for whatever a store's library raises, without what it may say of secrets.

    Args:
        what: the task.
        name: of the file or folder, without credentials.

    Raises:
        SourceError: in the place of anything that is no error of this project.
    """
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

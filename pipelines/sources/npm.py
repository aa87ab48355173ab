"""Files inside a package of the npm registry; the package is read, and never installed.

The registry is the one that ``NPM_CONFIG_REGISTRY`` names, npm's own variable, else the public one.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from pipelines.errors import SourceError
from pipelines.sources.download import download
from pipelines.sources.wheel import checked_member

PUBLIC_REGISTRY = "https://registry.npmjs.org"
#: Of a whole package, as it is sent.
_MAX_BYTES = 256 << 20
#: Folder that all files of a package lie in.
_TOP = "package/"


def registry() -> str:
    """Address of the registry, without a slash at its end."""
    names = ("NPM_CONFIG_REGISTRY", "npm_config_registry")
    address = next((os.environ[name] for name in names if os.environ.get(name)), PUBLIC_REGISTRY)
    return address.rstrip("/")


def npm_members(package: str, members: Mapping[str, str]) -> dict[str, bytes]:
    """Files of a package, by name.

    Args:
        package: with its version, e.g. ``@scope/name@1.2.3``.
        members: sha256 of each file that is wanted, by its path within the package.

    Raises:
        SourceError: if the package cannot be had, or does not hold those files.
    """
    name, _, version = package.rpartition("@")
    url = f"{registry()}/{name}/-/{name.rpartition('/')[2]}-{version}.tgz"
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "package.tgz"
        download(url, file, sha256=None, max_bytes=_MAX_BYTES, is_shown=True)
        try:
            with tarfile.open(file) as archive:
                return {member: _checked(archive, member, members[member]) for member in members}
        except (tarfile.TarError, zlib.error, EOFError, OSError) as err:
            raise SourceError(f"{package} is no package of npm ({err})") from err


def _checked(archive: tarfile.TarFile, member: str, sha256: str) -> bytes:
    try:
        stream = archive.extractfile(_TOP + member)
    except KeyError:
        stream = None
    if stream is None:
        raise SourceError(f"the package does not hold {member}")
    return checked_member(member, stream.read(), sha256)

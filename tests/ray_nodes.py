"""A Ray cluster of two nodes on this machine, for the time of a test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.loopback import closed_port


class Nodes(NamedTuple):
    """Of a processor each."""

    address: str
    second: subprocess.Popen[bytes]


@contextmanager
def two_nodes(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """A head and another node, with ports of their own, ended by their ids.

    Args:
        folder: where their words go.
        patch: sets the token by which children of this process are let in.
    """
    patch.setenv("RAY_AUTH_MODE", "token")
    patch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    address = f"127.0.0.1:{closed_port()}"
    started: list[subprocess.Popen[bytes]] = []
    port = address.rpartition(":")[2]
    try:
        for own in (
            ("--head", f"--port={port}", "--include-dashboard=false"),
            (f"--address={address}",),
        ):
            started.append(_node(folder / f"node{len(started)}.txt", own))
        yield Nodes(address, started[1])
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(60)


def _node(words: Path, own: tuple[str, ...]) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("ray")), "start", "--num-cpus=1", "--block", *own]
    with words.open("wb") as stream:
        process = subprocess.Popen(
            command,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + 90
    while "Ray runtime started" not in words.read_text(errors="replace"):
        assert process.poll() is None, words.read_text()
        assert time.monotonic() < until, words.read_text()
        time.sleep(0.2)
    return process

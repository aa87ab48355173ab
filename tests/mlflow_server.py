"""A real MLflow server on this machine, for as long as a test needs it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.loopback import closed_port

_START_S = 200


@contextmanager
def mlflow_server(store: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process, in a group of its own, and its address; it is ended where it still runs.

    ``store`` is an SQLite file; artifacts are kept in ``folder/kept``.
    """
    port = closed_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    command += ["--port", str(port), "--backend-store-uri", f"sqlite:///{store}"]
    command += ["--artifacts-destination", str(folder / "kept")]
    with subprocess.Popen(command, cwd=folder, start_new_session=True) as server:
        try:
            deadline = time.monotonic() + _START_S
            while time.monotonic() < deadline:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.3)
            yield server, f"http://127.0.0.1:{port}"
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)

"""A served app and a browser that opens it, for the tests and for `make shots`.

What the phone page's tests share beside it stands in `tests.apps.phone_browsing`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Debian's name, and others'.
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    "--disable-background-networking",
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
    # A name for this computer that the browser does not take for this computer.
    "--host-resolver-rules=MAP field.test 127.0.0.1",
)
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}


def chromium() -> str | None:
    """The browser's program: the one that CHROMIUM names, or the one that is installed; or None."""
    stated = os.environ.get("CHROMIUM")
    return stated or next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def announced(
    command: Sequence[str], **options: Any
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of `fieldlens app`, and what it said until it served."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "app", *command],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stderr is not None
    try:
        said = ""
        while "Stop with Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield process, said
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            process.wait()
            process.stderr.close()


@contextmanager
def served(app: str, root: Path, extra: Mapping[str, str] | None = None) -> Iterator[str]:
    """The address of an app while it is served."""
    port = free_port()
    command = [sys.executable, "-m", "streamlit", "run", f"apps/{app}.py"]
    process = subprocess.Popen(
        [*command, "--server.port", str(port), "--server.headless", "true"],
        cwd=ROOT,
        env={**os.environ, "FIELDLENS_ROOT": str(root), "OMP_NUM_THREADS": "1", **(extra or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium with a camera that shows a test card."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield program
        program.close()


def open_app(page: Any, address: str) -> None:
    """Go to an app and wait until it stands."""
    page.goto(address)
    page.wait_for_selector(".fl-head", timeout=60_000)
    settle(page)


def settle(page: Any) -> None:
    """Wait until the server has nothing more to say."""
    page.wait_for_timeout(150)
    page.wait_for_function(
        "document.querySelector('[data-test-script-state]')?.dataset.testScriptState !== 'running'",
        timeout=60_000,
    )
    page.wait_for_timeout(250)


def source(page: Any, name: str) -> None:
    """Choose where the picture comes from."""
    page.get_by_role("radio", name=name).or_(page.get_by_role("button", name=name)).first.click()
    settle(page)

"""The phone page in Chromium, for its tests: a server, a browser, a page, a picture, an answer."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apps.phone_server import make_server, serve_in_background
from apps.phone_site import DIST_DIR
from tests.apps.browsing import PHONE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT_MS = 60_000


class Faults:
    """What a server does wrong, by a pattern of the address; changed while it runs.

    ``503``; ``portal`` (a page of a network that wants a login); ``silent`` (no answer at all);
    ``cut`` and ``hang`` (half of the bytes, then the end or nothing); ``slow`` (some bytes at a
    time, for longer than a download may stand still).
    """

    SLOW_S = 20

    def __init__(self) -> None:
        self.by_pattern: dict[str, str] = {}
        self.asked: list[str] = []
        self._over = threading.Event()

    def of(self, address: str) -> str | None:
        self.asked.append(address)
        found = (kind for pattern, kind in self.by_pattern.items() if re.search(pattern, address))
        return next(found, None)

    def set(self, pattern: str, kind: str) -> None:
        """From now on, this; what hangs goes on hanging until `heal`."""
        self.by_pattern = {pattern: kind}

    def heal(self) -> None:
        self.by_pattern = {}
        self._over.set()
        self._over = threading.Event()

    def sleep(self, seconds: float = 120) -> None:
        self._over.wait(seconds)


def _faulty(handler: type[Any], faults: Faults) -> type[Any]:
    """The real server's handler with faults."""

    class Handler(handler):  # type: ignore[misc]
        def do_GET(self) -> None:
            kind = faults.of(self.path)
            if kind is None:
                super().do_GET()
                return
            if kind == "silent":
                faults.sleep()
            elif kind in {"503", "portal"}:
                body = b"<!doctype html><title>Log in</title>"
                self.send_response(503 if kind == "503" else 200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            else:
                self._in_parts(kind)
            self.close_connection = True

        def _in_parts(self, kind: str) -> None:
            whole, self.wfile = self.wfile, io.BytesIO()
            super().do_GET()
            answer, self.wfile = self.wfile.getvalue(), whole
            head, body = answer.split(b"\r\n\r\n", 1)
            self.wfile.write(head + b"\r\n\r\n")
            if kind == "slow":
                n = 10
                for part in range(n):
                    self.wfile.write(body[part * len(body) // n : (part + 1) * len(body) // n])
                    self.wfile.flush()
                    faults.sleep(faults.SLOW_S / n)
                return
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if kind == "hang":
                faults.sleep()

    return Handler


@contextlib.contextmanager
def served(
    root: Path, *, faults: Faults | None = None, dist_dir: Path = DIST_DIR, port: int = 0
) -> Iterator[str]:
    server = make_server(root, port=port, dist_dir=dist_dir)
    if faults is not None:
        server.RequestHandlerClass = _faulty(server.RequestHandlerClass, faults)
    thread = serve_in_background(server)
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        if faults is not None:
            faults.heal()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def opened(browser: Browser, *, allowed: str = "^$", **options: object) -> Iterator[Page]:
    """A fresh page; whatever it complains of on the console, apart from ``allowed``, fails.

    A complaint is its text and the address that it is about.
    """
    complaints: list[str] = []
    context = browser.new_context(**{"viewport": PHONE, "locale": "en-GB", **options})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.on(
        "console",
        lambda message: (
            complaints.append(f"{message.text} {message.location.get('url', '')}")
            if message.type in {"error", "warning"}
            else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [text for text in complaints if not re.search(allowed, text)] == []


def open_task(page: Page, url: str, task: str) -> None:
    page.goto(f"{url}#/{task}")
    page.wait_for_selector(".task[data-ready=true]")


def choose(page: Page, picture: Path | bytes, *, name: str = "photo.png") -> None:
    file = (
        str(picture)
        if isinstance(picture, Path)
        else {"name": name, "mimeType": "image/png", "buffer": picture}
    )
    page.set_input_files("#photo", file)


def answered(page: Page, n: int = 1) -> dict[str, str]:
    """What the page says after its n-th answer."""
    page.wait_for_selector(f'.answer[data-answers="{n}"]')
    return dict(page.eval_on_selector(".answer", "element => ({...element.dataset})"))


def axe_faults(page: Page) -> list[str]:
    """What axe finds on the page as it is; the test is skipped where axe is not installed."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe is not installed")
    page.evaluate(Path(axe.__path__[0], "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [f"{fault['id']}: {[node['html'][:120] for node in fault['nodes']]}" for fault in found]

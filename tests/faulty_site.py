"""A web server on this machine, with the faults that real ones have."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler

from tests.loopback import answering

DATA = os.urandom(300_000)


@dataclass
class Site:
    """Its files, and how it answers."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=lambda: {"/set.bin": DATA})
    takes_ranges: bool = True
    minds_if_range: bool = True
    sends_length: bool = True
    etag: str = '"one"'
    last_modified: str = ""
    #: Body bytes after which the line is cut, an answer each; then it holds.
    cuts: list[int] = field(default_factory=list)
    #: Status of the next answers, instead of the file.
    refusals: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    #: (Range, status, body bytes sent) of each answer.
    answers: list[tuple[str | None, int, int]] = field(default_factory=list)

    @property
    def n_sent(self) -> int:
        return sum(answer[2] for answer in self.answers)


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, site: Site, *arguments: object) -> None:
        self.site = site
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site, data = self.site, self.site.files.get(self.path)
        if site.refusals:
            self._answer(site.refusals.pop(0), b"")
        elif self.path in site.redirects:
            self._answer(302, b"", Location=site.redirects[self.path])
        elif data is None:
            self._answer(404, b"")
        elif site.etag and self.headers.get("If-None-Match") == site.etag:
            self._answer(304, b"")
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        site = self.site
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        condition = self.headers.get("If-Range")
        is_same = not site.minds_if_range or condition in {site.etag, site.last_modified}
        headers = {"ETag": site.etag, "Last-Modified": site.last_modified}
        if wanted and site.takes_ranges and is_same:
            start = int(wanted[1])
            if start >= len(data):
                self._answer(416, b"")
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._answer(206, data[start:], **headers)
        else:
            self._answer(200, data, **headers)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        if not body or self.site.sends_length:
            headers["Content-Length"] = str(len(body))
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if body and self.site.cuts:
            body = body[: self.site.cuts.pop(0)]
        # Noted before it is sent: the test may look as soon as it has arrived.
        self.site.answers.append((self.headers.get("Range"), status, len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@contextmanager
def serving_site() -> Iterator[Site]:
    """A site for the length of a block."""
    site = Site()
    with answering(partial(_Handler, site)) as site.url:
        yield site

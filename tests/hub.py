"""A stand-in for the Hugging Face Hub on this machine: the calls that HfFileSystem makes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests.loopback import answering

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Files of the data set ``owner/plants``, on main and at `COMMIT`."""

    files: dict[str, bytes]
    url: str = ""
    #: Bytes after which each file's answer ends; None for whole answers.
    cut: int | None = None
    #: Requests so far, as ``path range``, without what follows a question mark.
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: object) -> None:
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{path} {self.headers.get('Range', '')}")
        if re.fullmatch(rf"/api/datasets/owner/plants(/revision/(main|v1|{COMMIT}))?", path):
            self._json({"id": "owner/plants", "sha": COMMIT, "siblings": [], "tags": []})
        elif found := re.fullmatch(rf"/api/datasets/owner/plants/tree/{COMMIT}/?(.*)", path):
            self._tree(found[1])
        elif found := re.fullmatch(rf"/datasets/owner/plants/resolve/{COMMIT}/(.+)", path):
            self._file(self.hub.files.get(found[1]))
        else:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _tree(self, folder: str) -> None:
        prefix = f"{folder}/" if folder else ""
        entries = {}
        for path, data in self.hub.files.items():
            if path.startswith(prefix):
                name, _, rest = path[len(prefix) :].partition("/")
                oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                kind = {"type": "directory", "size": 0} if rest else {"type": "file"}
                entries[name] = {"oid": oid, "path": prefix + name, "size": len(data), **kind}
        if entries:
            self._json(list(entries.values()))
        else:
            self._json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})

    def _file(self, data: bytes | None) -> None:
        if data is None:
            self._json({"error": "not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(data))
        part = data[start:end]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"one"')
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            if self.hub.cut is not None and end > self.hub.cut:
                self.wfile.write(part[: max(0, self.hub.cut - start)])
                self.close_connection = True
            else:
                self.wfile.write(part)

    def _json(
        self, document: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@contextmanager
def serving_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """A Hub with one data set, for the length of a block."""
    hub = Hub(files)
    with answering(partial(_Handler, hub)) as url:
        hub.url = url
        yield hub

"""A file behind an http(s) address, whole on this disk, however often the line breaks.

What has arrived stays as ``<target>.part``, beside a note of the server's ETag or Last-Modified.
The next try, also of another process, asks for the rest with ``If-Range``, so that two versions of
a file are never joined. The caller holds a lock on the folder.

References:
    RFC 9110 (HTTP Semantics, 2022): 13.1.5 If-Range, 14.2 Range, 15.3.7 Partial Content.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Protocol

from pipelines.atomic import file_sha256, storage_errors, write_text
from pipelines.errors import SourceError
from pipelines.sources.addresses import check_address, open_address, public_name, request_for
from pipelines.sources.streams import CHUNK_BYTES, byte_bar, reason

#: Seconds of silence after which a connection counts as broken.
TIMEOUT_S = 30.0
_RETRIES = 3
#: Answers that may be better a moment later: timeout, too many requests, and all of 5xx.
_PASSING = frozenset({408, 429})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Broken(Exception):
    """The line broke or the server faltered; another try may help."""


class _Response(Protocol):
    status: int
    headers: Message

    def read1(self, n: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class _Note:
    """What the server said about the version of a file that is on its way, or has arrived."""

    etag: str = ""
    last_modified: str = ""
    #: Length of the whole file; None if the server did not say.
    n_bytes: int | None = None

    @property
    def validator(self) -> str:
        """What may stand in If-Range: a strong ETag, else the date; empty if there is neither."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified


def download(
    url: str,
    target: Path,
    *,
    sha256: str | None,
    max_bytes: int,
    is_shown: bool = False,
    backoff_s: float = 1.0,
) -> None:
    """Bring the file behind an address to ``target``, or leave it there if it is still the same.

    A file with a known hash that has arrived before is used without asking the server.

    Args:
        url: http or https.
        target: the file; ``.part`` and ``.json`` beside it belong to it.
        sha256: of the whole file, if known.
        max_bytes: of the whole file.
        is_shown: whether to show progress.
        backoff_s: wait before the second try; doubles with each further one.

    Raises:
        SourceError: if it cannot be fetched, is too large, or has another hash.
        StorageError: if the disk is full; what has arrived stays.
    """
    check_address(url, public_name(url))
    if sha256 and target.is_file():
        if file_sha256(target) == sha256:
            return
        target.unlink()
    for attempt in itertools.count():
        try:
            _fetch(url, target, max_bytes, is_shown)
            break
        except _Broken as err:
            if attempt == _RETRIES:
                raise SourceError(
                    f"{public_name(url)}: could not be fetched in {attempt + 1} tries ({err}). "
                    f"What has arrived is kept: run the same command again."
                ) from err
            time.sleep(backoff_s * 2**attempt)
    if sha256 and (got := file_sha256(target)) != sha256:
        target.unlink()
        raise SourceError(
            f"{public_name(url)}: expected sha256 {sha256}, got {got}. The file has changed at its "
            f"publisher, or on its way: check it, then mend `sha256`."
        )


def _fetch(url: str, target: Path, max_bytes: int, is_shown: bool) -> None:
    part, note_path = _beside(target, ".part"), _beside(target, ".json")
    note = _read_note(note_path)
    have = part.stat().st_size if part.is_file() else 0
    if not note.validator or have == 0:
        have = 0
    elif have == note.n_bytes:
        # Killed between the last byte and the rename.
        _finish(part, target)
        return
    request = request_for(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", note.validator)
    elif target.is_file() and not part.is_file() and note.etag:
        request.add_header("If-None-Match", note.etag)
    elif target.is_file() and not part.is_file() and note.last_modified:
        request.add_header("If-Modified-Since", note.last_modified)
    response = _open(request, part)
    if response is None:
        return
    with closing(response):
        if response.status == 206:
            have = _check_rest(response, note, have, part)
        else:
            have = 0
            # In this order: a part never lies beside the note of another version.
            part.unlink(missing_ok=True)
            target.unlink(missing_ok=True)
            note = _note_of(response)
            write_text(note_path, json.dumps(asdict(note)) + "\n")
        if (note.n_bytes or 0) > max_bytes:
            raise _too_large(url, max_bytes)
        with ExitStack() as stack:
            stack.enter_context(storage_errors(part))
            stream = stack.enter_context(part.open("ab"))
            name = public_name(url).rpartition("/")[2]
            bar = byte_bar(f"{name}: downloading", note.n_bytes or 0)
            advance_to = stack.enter_context(bar) if is_shown and note.n_bytes else _show_nothing
            for chunk in _read(response):
                have += len(chunk)
                if have > max_bytes:
                    part.unlink()
                    raise _too_large(url, max_bytes)
                stream.write(chunk)
                advance_to(have)
            stream.flush()
            os.fsync(stream.fileno())
    if note.n_bytes is not None and have != note.n_bytes:
        raise _Broken(f"the line ended after {have:,} of {note.n_bytes:,} bytes")
    _finish(part, target)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _finish(part: Path, target: Path) -> None:
    with storage_errors(target):
        part.replace(target)


def _read_note(path: Path) -> _Note:
    try:
        return _Note(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return _Note()


def _note_of(response: _Response) -> _Note:
    length = response.headers.get("Content-Length", "")
    return _Note(
        etag=response.headers.get("ETag", ""),
        last_modified=response.headers.get("Last-Modified", ""),
        n_bytes=int(length) if length.isdecimal() else None,
    )


def _open(request: urllib.request.Request, part: Path) -> Any:
    """The answer, or None if the file that is here is still the same."""
    name = public_name(request.full_url)
    try:
        return open_address(request, TIMEOUT_S)
    except urllib.error.HTTPError as err:
        err.close()
        if err.code == 304:
            return None
        if err.code == 416:
            part.unlink(missing_ok=True)
            raise _Broken("the server knows no such range") from err
        if err.code in _PASSING or err.code >= 500:
            raise _Broken(f"HTTP {err.code} {reason(err)}") from err
        raise SourceError(
            f"{name}: HTTP {err.code} {reason(err)}. Open the address in a browser: it may have "
            f"moved, or ask for a login; then fetch it by hand and name it as a path."
        ) from err
    except urllib.error.URLError as err:
        if isinstance(err.reason, ssl.SSLCertVerificationError):
            raise SourceError(
                f"{name}: the server's certificate is not trusted ({reason(err.reason)})."
            ) from err
        cause = err.reason if isinstance(err.reason, BaseException) else err
        raise _Broken(reason(cause)) from err
    except http.client.InvalidURL as err:
        raise SourceError(f"{name}: not a well-formed address ({reason(err)}).") from err
    except (OSError, http.client.HTTPException) as err:
        raise _Broken(reason(err)) from err


def _check_rest(response: _Response, note: _Note, have: int, part: Path) -> int:
    """Where the rest begins, if it is the rest of the very version that is here."""
    stated = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    is_rest = stated is not None and int(stated[1]) == have
    # A server may ignore If-Range and still give a range.
    is_same = (
        response.headers.get("ETag", note.etag) == note.etag
        and response.headers.get("Last-Modified", note.last_modified) == note.last_modified
    )
    if not is_rest or not is_same:
        part.unlink(missing_ok=True)
        raise _Broken("the file changed at the server")
    return have


def _read(response: _Response) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as err:
            raise _Broken(reason(err)) from err
        if not chunk:
            return
        yield chunk


def _show_nothing(done: int) -> None:
    """For downloads that run side by side: one bar shows all of them."""


def _too_large(url: str, max_bytes: int) -> SourceError:
    return SourceError(
        f"{public_name(url)}: larger than {max_bytes:,} bytes. If that is right, raise `max_bytes` "
        f"of the source in params.yaml."
    )

"""Addresses of the web: which are allowed, how they are written down, how they are opened.

Only http and https, without credentials; a redirect never leaves https.

Bytes on their way from a source: read in chunks, with its faults told apart from our disk's.

A file behind an http(s) address, whole on this disk, however often the line breaks.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol
from urllib.parse import quote, urlsplit

from pipelines.atomic import file_sha256, storage_errors, write_text
from pipelines.errors import SourceError
from pipelines.progress import track

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Characters of an address that stay as they are; others (spaces, accents) are percent-encoded.
_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


def is_address(location: str) -> bool:
    """Whether a location is an address with a scheme, not a path of this machine.

    Args:
        location: from params.yaml.
    """
    return _SCHEME.match(location) is not None


def public_name(location: str) -> str:
    """A location as it may stand in a file or a log: no credentials, and no folders of ours.

    Args:
        location: an address or a path.
    """
    if not is_address(location):
        return PurePosixPath(location).name or "folder"
    # Not by urlsplit, which refuses some of the addresses that a message must name.
    scheme, _, rest = location.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def public_words(words: str) -> str:
    """A message of a library, without the credentials and signatures of the addresses in it.

    Args:
        words: on one line.
    """
    return re.sub(r"://[^/@\s]+@", "://", re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1", words))


def check_address(url: str, where: str) -> None:
    """Nothing, if an address may be fetched.

    Args:
        url: the address.
        where: for the message.

    Raises:
        SourceError: if it is not http or https, or carries a user name.
    """
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_sound = False
    if not is_sound:
        raise SourceError(
            f"{where}: expected an address that starts with http:// or https:// (got "
            f"{public_name(url)!r})."
        )
    if parts.username is not None:
        raise SourceError(
            f"{where}: {public_name(url)} carries a user name. Fetch the file by hand and name it "
            f"as a path: a password has no place in params.yaml."
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect unless it leaves https for http, where anybody could change the file."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            fp.close()
            raise SourceError(
                f"{public_name(req.full_url)}: redirects from https to "
                f"{urlsplit(newurl).scheme}. Give the final address if you trust it."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def request_for(url: str) -> urllib.request.Request:
    """A request for an address as people write it, with spaces and accents.

    Args:
        url: http or https.
    """
    return urllib.request.Request(quote(url, safe=_CHARACTERS))


def open_address(request: urllib.request.Request, timeout_s: float) -> Any:
    """The server's answer, after redirects.

    Args:
        request: from `request_for`, with further headers.
        timeout_s: of each step, in seconds.

    Raises:
        SourceError: if it redirects away from https.
        urllib.error.URLError: as urllib does, also for answers other than 2xx.
    """
    # Built by hand: urllib's own opener also reads file:, ftp: and data: addresses.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "fieldlens")]
    return opener.open(request, timeout=timeout_s)


# -- streams --------------------------------------------------------------------------------------
#: Bytes moved at a time; also the unit of progress bars.
CHUNK_BYTES = 1 << 20


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


def read_chunks(
    stream: Readable, fault: str, errors: tuple[type[Exception], ...]
) -> Iterator[bytes]:
    """The bytes of a stream, so that a fault of the source is not taken for one of our disk.

    Args:
        stream: to read to its end.
        fault: what to say if reading fails, e.g. ``a.zip: 'b.jpg' is damaged``.
        errors: what its ``read`` may raise.

    Raises:
        SourceError: in place of any of ``errors``.
    """
    while True:
        try:
            chunk = stream.read(CHUNK_BYTES)
        except errors as err:
            raise SourceError(f"{fault} ({reason(err)}).") from err
        if not chunk:
            return
        yield chunk


def reason(err: BaseException) -> str:
    """An exception's own words, on one line.

    Args:
        err: of the system or a library.
    """
    words = (err.strerror if isinstance(err, OSError) else None) or str(err)
    return " ".join(words.split()) or type(err).__name__


@contextmanager
def byte_bar(what: str, n_bytes: int) -> Iterator[Callable[[int], None]]:
    """A progress bar that counts MiB.

    Args:
        what: a few words, e.g. ``fish_species: unpacking``.
        n_bytes: how many there are.

    Yields:
        A function to call with the bytes done so far.
    """
    shown = 0
    bar = iter(track(itertools.count(), f"{what} (MiB)", -(-n_bytes // CHUNK_BYTES)))

    def advance_to(done: int) -> None:
        nonlocal shown
        for _ in range(shown, done // CHUNK_BYTES):
            next(bar)
        shown = max(shown, done // CHUNK_BYTES)

    yield advance_to


def peek(chunks: Iterator[bytes], n_bytes: int) -> tuple[Iterator[bytes], bytes]:
    """The same chunks, and the first bytes of them.

    Args:
        chunks: of a file.
        n_bytes: how many are wanted; fewer are given of a shorter file.
    """
    seen: list[bytes] = []
    for chunk in chunks:
        seen.append(chunk)
        if sum(map(len, seen)) >= n_bytes:
            break
    return itertools.chain(seen, chunks), b"".join(seen)[:n_bytes]


# -- download -------------------------------------------------------------------------------------
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

"""A file behind an http(s) address, whole on this disk, however often the line breaks.

What has arrived stays as ``<target>.part``, beside a note of the server's ETag or Last-Modified.
The next try, also of another process, asks for the rest with ``If-Range``, so that two versions of
a file are never joined. The caller holds a lock on the folder.

Only http and https are asked, without credentials, and a redirect never leaves https. How addresses
stand in messages, and how a source's faults are told apart from our disk's, serves all sources.

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
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote, urlsplit

from pipelines.atomic import file_sha256, storage_errors, write_text
from pipelines.errors import SourceError
from pipelines.progress import track

#: Bytes moved at a time; also the unit of progress bars.
CHUNK_BYTES = 1 << 20
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
#: Characters of an address that stay as they are; others (spaces, accents) are percent-encoded.
_CHARACTERS = "%/:=&?~#+!$,;'@()*[]"


# -- addresses ------------------------------------------------------------------------------------
def is_address(location: str) -> bool:
    """Whether a location is an address with a scheme, not a path of this machine."""
    return _SCHEME.match(location) is not None


def public_name(location: str) -> str:
    """A location as it may stand in a file or a log: no credentials, and no folders of ours."""
    if not is_address(location):
        return PurePosixPath(location).name or "folder"
    # Not by urlsplit, which refuses some of the addresses that a message must name.
    scheme, _, rest = location.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def public_words(words: str) -> str:
    """A library's message, without the credentials and signatures of the addresses in it."""
    return re.sub(r"://[^/@\s]+@", "://", re.sub(r"(://[^\s?'\"]*)\?[^\s'\")]*", r"\1", words))


def check_address(url: str, where: str) -> None:
    """Nothing, if an address may be fetched.

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


# -- faults ---------------------------------------------------------------------------------------
def reason(err: BaseException) -> str:
    """An exception's own words, on one line."""
    words = (err.strerror if isinstance(err, OSError) else None) or str(err)
    return " ".join(words.split()) or type(err).__name__


@contextmanager
def source_faults(
    fault: str, errors: tuple[type[Exception], ...] = (OSError,), next_step: str = ""
) -> Iterator[None]:
    """A fault of the source as one line, so that it is not taken for one of our disk.

    Args:
        fault: what to say, e.g. ``a.zip: 'b.jpg' is damaged``; the error's own words follow it.
        next_step: follows these.

    Raises:
        SourceError: in place of any of ``errors``.
    """
    try:
        yield
    except errors as err:
        raise SourceError(f"{fault} ({reason(err)}).{next_step and ' '}{next_step}") from err


def read_chunks(
    read: Callable[[int], bytes], fault: str, errors: tuple[type[Exception], ...] = (OSError,)
) -> Iterator[bytes]:
    """The bytes that a stream's ``read`` gives; its ``errors`` become `source_faults`."""
    with source_faults(fault, errors):
        while chunk := read(CHUNK_BYTES):
            yield chunk


# -- download -------------------------------------------------------------------------------------
#: Seconds of silence after which a connection counts as broken.
_TIMEOUT_S = 30.0
_RETRIES = 3
#: Answers that may be better a moment later: timeout, too many requests, and all of 5xx.
_PASSING = frozenset({408, 429})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class _Broken(Exception):
    """The line broke or the server faltered; another try may help."""


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
        target: the file; ``.part`` and ``.json`` beside it belong to it.
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
            with storage_errors(target):
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
    part, note_path = (target.with_name(target.name + suffix) for suffix in (".part", ".json"))
    note = _read_note(note_path)
    have = part.stat().st_size if part.is_file() and note.validator else 0
    if have and have == note.n_bytes:
        # Killed between the last byte and the rename.
        part.replace(target)
        return
    asked = {}
    if have:
        asked = {"Range": f"bytes={have}-", "If-Range": note.validator}
    elif target.is_file() and not part.is_file():
        asked = {"If-None-Match": note.etag, "If-Modified-Since": note.last_modified}
    response = _open(url, {name: value for name, value in asked.items() if value}, part)
    if response is None:
        return
    with closing(response):
        if response.status == 206:
            _check_rest(response, note, have, part)
        else:
            have = 0
            # In this order: a part never lies beside the note of another version.
            part.unlink(missing_ok=True)
            target.unlink(missing_ok=True)
            length = response.headers.get("Content-Length", "")
            note = _Note(
                etag=response.headers.get("ETag", ""),
                last_modified=response.headers.get("Last-Modified", ""),
                n_bytes=int(length) if length.isdecimal() else None,
            )
            write_text(note_path, json.dumps(asdict(note)) + "\n")
        with part.open("ab") as stream:
            chunks: Iterable[bytes] = _read(response)
            if is_shown and note.n_bytes:
                what = f"{public_name(url).rpartition('/')[2]}: downloading (MiB)"
                total = note.n_bytes // CHUNK_BYTES
                chunks = track(chunks, what, total, lambda: stream.tell() // CHUNK_BYTES)
            for chunk in chunks:
                have += len(chunk)
                if max(have, note.n_bytes or 0) > max_bytes:
                    part.unlink()
                    raise SourceError(
                        f"{public_name(url)}: larger than {max_bytes:,} bytes. If that is right, "
                        f"raise `max_bytes` of the source in params.yaml."
                    )
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
    if note.n_bytes is not None and have != note.n_bytes:
        raise _Broken(f"the line ended after {have:,} of {note.n_bytes:,} bytes")
    part.replace(target)


def _read_note(path: Path) -> _Note:
    try:
        return _Note(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return _Note()


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
        scheme = urlsplit(newurl).scheme
        if scheme not in {req.type, "https"}:
            fp.close()
            raise SourceError(
                f"{public_name(req.full_url)}: redirects from {req.type} to {scheme}. Give the "
                f"final address if you trust it."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, asked: dict[str, str], part: Path) -> http.client.HTTPResponse | None:
    """The answer after redirects, or None if the file that is here is still the same."""
    name = public_name(url)
    request = urllib.request.Request(
        quote(url, safe=_CHARACTERS), headers={"User-Agent": "fieldlens", **asked}
    )
    try:
        opener = urllib.request.build_opener(_Redirects)
        response: http.client.HTTPResponse = opener.open(request, timeout=_TIMEOUT_S)
        return response
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
    except http.client.InvalidURL as err:
        raise SourceError(f"{name}: not a well-formed address ({reason(err)}).") from err
    except (OSError, http.client.HTTPException) as err:
        # urllib wraps what the socket raised.
        cause = err.reason if isinstance(err, urllib.error.URLError) else err
        cause = cause if isinstance(cause, BaseException) else err
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise SourceError(
                f"{name}: the server's certificate is not trusted ({reason(cause)})."
            ) from err
        raise _Broken(reason(cause)) from err


def _check_rest(response: http.client.HTTPResponse, note: _Note, have: int, part: Path) -> None:
    """Nothing, if what comes is the rest of the very version that is here."""
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


def _read(response: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException) as err:
        raise _Broken(reason(err)) from err

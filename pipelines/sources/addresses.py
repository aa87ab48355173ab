"""Addresses of the web: which are allowed, how they are written down, how they are opened.

Only http and https, without credentials; a redirect never leaves https.
"""

from __future__ import annotations

import http.client
import re
import urllib.request
from pathlib import PurePosixPath
from typing import IO, Any
from urllib.parse import quote, urlsplit

from pipelines.errors import SourceError

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

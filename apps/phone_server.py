"""The phone page's own small server: the built page and the models, and nothing else on the disk.

Run alone by ``python -m apps.phone_server``, or started beside the Streamlit apps by `fieldlens
app`. Standard library only, apart from what reading a bundle needs.

It sends the headers that a browser wants before WebAssembly may use threads (cross-origin
isolation) and a content security policy by which the page can talk to this server alone.
"""

from __future__ import annotations

import argparse
import logging
import ssl
import sys
import threading
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from apps.phone_site import DIST_DIR, TYPES, Answer, PhoneSite
from pipelines.errors import ConfigError, PipelineError

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8502

#: The same policy as in index.html, for the workers too, which a page's own tag does not bind.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: Sent with every answer.
HEADERS = {
    # Cross-origin isolation (WHATWG HTML, "cross-origin opener policy"): WebAssembly threads
    # share memory, which browsers allow to no other page.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TIMEOUT_S = 30


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "fieldlens"
    sys_version = ""
    timeout = _TIMEOUT_S
    site: PhoneSite

    def do_GET(self) -> None:
        """Send what stands at the address."""
        self._answer(is_body_wanted=True)

    def do_HEAD(self) -> None:
        """Send only the headers of that."""
        self._answer(is_body_wanted=False)

    def _answer(self, *, is_body_wanted: bool) -> None:
        accepted = self.headers.get("Accept-Encoding", "")
        codings = [part.split(";")[0].strip() for part in accepted.lower().split(",")]
        try:
            found = self.site.find(unquote(urlsplit(self.path).path), codings)
        except (PipelineError, OSError, ValueError) as err:
            logger.warning("%s: %s", self.path, err)
            found = None
        status = HTTPStatus.OK if found else HTTPStatus.NOT_FOUND
        answer = found or Answer(b"There is nothing here.\n", TYPES[".txt"], "no-store")
        self.send_response(status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", answer.cache)
        self.send_header("Vary", "Accept-Encoding")
        if answer.coding:
            self.send_header("Content-Encoding", answer.coding)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        if is_body_wanted:
            try:
                self.wfile.write(answer.body)
            except (BrokenPipeError, ConnectionResetError, TimeoutError):
                self.close_connection = True  # the phone went away; nobody is left to be told

    def log_message(self, format: str, *args: object) -> None:
        """Log quietly, and no address of a phone."""
        logger.debug(format, *args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke or was no HTTP concerns nobody."""
        logger.debug("a connection failed", exc_info=True)


def make_server(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    dist_dir: Path = DIST_DIR,
    certificate: tuple[Path, Path] | None = None,
) -> ThreadingHTTPServer:
    """A server that is bound and not yet running: call its ``serve_forever``.

    Args:
        port: 0 for any free one; ``server_address`` tells which.
        certificate: files of a certificate chain and its key, for https; None for http.

    Raises:
        ConfigError: if the page is not built, or the port or the certificate cannot be used.
    """
    handler = type("Handler", (_Handler,), {"site": PhoneSite.open(root, dist_dir)})
    try:
        server = _Server((host, port), handler)
    except OSError as err:
        raise ConfigError(
            f"{host}:{port}: the phone page cannot be served there ({err.strerror or err}). "
            f"Choose another --port."
        ) from err
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(*certificate)
        except (OSError, ssl.SSLError) as err:
            server.server_close()
            raise ConfigError(f"{certificate[0]}: not a usable certificate ({err}).") from err
        # The handshake is done by the thread of the connection, not by the one that accepts.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    return server


def serve_in_background(server: ThreadingHTTPServer) -> threading.Thread:
    """A thread that serves until ``server.shutdown()``."""
    thread = threading.Thread(target=server.serve_forever, name="phone-page", daemon=True)
    thread.start()
    return thread


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the phone page until the process is interrupted; 2 if it cannot be served."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.phone_server", description="Serve the phone page and the models."
    )
    parser.add_argument("--root", type=Path, default=Path(), help="project folder (default: .)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets every computer of the network in",
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="0 for any free one")
    parser.add_argument("--cert", type=Path, help="certificate chain (PEM), for https")
    parser.add_argument("--key", type=Path, help="private key of the certificate (PEM)")
    args = parser.parse_args(arguments)
    if (args.cert is None) != (args.key is None):
        parser.error("--cert and --key go together")
    certificate = (args.cert, args.key) if args.cert else None
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        server = make_server(args.root, host=args.host, port=args.port, certificate=certificate)
    except ConfigError as err:
        sys.stderr.write(f"error: {err}\n")
        return 2
    scheme = "https" if certificate else "http"
    logger.info("phone page: %s://%s:%d/", scheme, *server.server_address[:2])
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

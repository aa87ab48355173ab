"""`fieldlens app`: the Streamlit apps, and beside them the page that runs on the phone itself.

The server is a process of its own, so that it holds no torch, MLflow or DVC. What needs those (the
registry) is done here, before it starts. It listens on this computer alone unless `--lan` is said.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path

from pipelines.commands.answer import Answer
from pipelines.errors import BundleError, ConfigError, PipelineError
from pipelines.paths import Paths

_LOG = logging.getLogger(__name__)

#: Settings of glibc (docs/experiments/apps.md). Streamlit answers each session in a
#: thread of its own, and each thread gets an arena that is never given back: twenty people grew the
#: server by 200 MB in two minutes. And each picture that is freed raises the size above which
#: memory comes straight from the system, until pictures lie between what stays; so it is fixed.
SERVER_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}
_LOOPBACK = "127.0.0.1"
_EVERYWHERE = "0.0.0.0"
_START_S = 60
_STOP_S = 10
#: As apps.models reads them; that module needs Streamlit, this one must not.
_ROOT, _MODELS = "FIELDLENS_ROOT", "FIELDLENS_MODELS_ROOT"
_TASK, _PHONE = "FIELDLENS_TASK", "FIELDLENS_PHONE_URL"
#: Streamlit's own variable for `server.baseUrlPath`.
_BASE_PATH = "STREAMLIT_SERVER_BASE_URL_PATH"
#: Tasks whose app looks for faces first, and needs the detector's file for that.
_FACE_TASKS = frozenset({"mask_detection"})
#: No packet goes there (RFC 5737): asking for the way names the address that faces the network.
_ELSEWHERE = ("192.0.2.1", 9)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which apps, and where they are served."""
    parser.add_argument("task", nargs="?", help="its app alone (default: all of them)")
    parser.add_argument(
        "--port", type=int, default=8501, help="the phone page has the next one (default: 8501)"
    )
    parser.add_argument(
        "--lan",
        action="store_true",
        help="let the local network in, so that phones can open the apps (default: this computer)",
    )
    parser.add_argument(
        "--registry",
        action="store_true",
        help="MLflow's champions instead of the models in this project",
    )
    parser.add_argument(
        "--base-path",
        metavar="/PATH",
        help="serve the apps below a path, as a proxy in front may want it (default: none)",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Serve the apps until the process is interrupted.

    Where a proxy has the phone page under another address, FIELDLENS_PHONE_URL says which.
    """
    task, port, is_lan = arguments.task, arguments.port, arguments.lan
    if importlib.util.find_spec("streamlit") is None:
        raise ConfigError("Streamlit is not installed. Install the apps: pip install '.[apps]'.")
    tasks = _tasks(paths, task)
    stated = arguments.base_path
    base = as_base_path(os.environ.get(_BASE_PATH, "") if stated is None else stated)
    host = _lan_address() if is_lan else _LOOPBACK
    bind = _EVERYWHERE if is_lan else _LOOPBACK
    _refuse_taken(bind, port)
    # A supervisor's "stop" is an interruption too: the server must not outlive this process.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    environment = {_ROOT: str(paths.root.resolve()), _TASK: task or ""}
    if arguments.registry:
        environment[_MODELS] = str(_bring_champions(paths, tasks))
    if _FACE_TASKS & set(tasks):
        _fetch_detector(paths)
    phone = _start_phone_page(paths, bind, port + 1)
    if phone is not None:
        environment[_PHONE] = os.environ.get(_PHONE) or f"http://{host}:{port + 1}/"
    process = subprocess.Popen(
        command_line(bind, port, base),
        cwd=_hub().parents[1],
        env={**SERVER_ENVIRONMENT, **os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_it_answers(process, port)
        _announce(f"{host}:{port}/{base}", environment, is_lan=is_lan)
        process.wait()
    finally:
        _stop(process)
        if phone is not None:
            phone.shutdown()
    return Answer()


def _hub() -> Path:
    """The script to serve: the hub, which shows one task alone where the environment names it."""
    spec = importlib.util.find_spec("apps.hub")
    assert spec is not None
    return Path(str(spec.origin))


def _tasks(paths: Paths, task: str | None) -> list[str]:
    """The tasks that are served: one, or all that have a card or a model."""
    files = *paths.datasets_dir.glob("*/card.yaml"), *paths.models_dir.glob("*/mobile/bundle.json")
    tasks = sorted({path.relative_to(paths.root).parts[1] for path in files})
    if task is None:
        return tasks
    if task not in tasks:
        raise ConfigError(
            f"app: there is no task {task!r}. Expected one of {', '.join(tasks)}; "
            f"`fieldlens app` alone shows every task."
        )
    return [task]


def as_base_path(text: str) -> str:
    """A base path as addresses take it: without a slash in front, with one behind; or empty.

    Args:
        text: e.g. ``/leaves`` or ``farm/leaves/``.
    """
    path = text.strip("/")
    if not re.fullmatch(r"(?:[\w~-][\w.~-]*(?:/[\w~-][\w.~-]*)*)?", path, re.ASCII):
        raise ConfigError(
            f"--base-path: expected names of letters, digits, '-', '_', '.' and '~' with '/' "
            f"between them, e.g. /leaves (got {text!r})."
        )
    return f"{path}/" if path else ""


def command_line(bind: str, port: int, base: str = "") -> list[str]:
    """How Streamlit is started; what must hold wherever it starts is said here once more."""
    options: Mapping[str, str] = {
        "server.address": bind,
        "server.port": str(port),
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "browser.gatherUsageStats": "false",
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        **({"server.baseUrlPath": base.rstrip("/")} if base else {}),
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, "-m", "streamlit", "run", str(_hub()), *flags]


def _lan_address() -> str:
    """This computer's address on the local network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            return str(probe.getsockname()[0])
        except OSError as err:
            raise ConfigError(
                f"--lan: this computer is on no network ({err.strerror}). Connect it, or start "
                f"without --lan."
            ) from err


def _refuse_taken(bind: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except (OSError, OverflowError) as err:
            reason = getattr(err, "strerror", None) or err
            raise ConfigError(
                f"--port: {port} cannot be used ({reason}). Choose another one."
            ) from err


def _bring_champions(paths: Paths, tasks: Sequence[str]) -> Path:
    from pipelines.tracking import champions

    into = Paths(paths.registry_models_dir.resolve())
    missing: list[str] = []
    for name in tasks:
        try:
            version = champions.bring(paths, name, into)
        except BundleError as err:
            missing.append(str(err))
        else:
            _LOG.info("%s: champion, version %s", name, version)
    if len(missing) == len(tasks):
        raise BundleError(missing[0] if missing else "There is no task to serve.")
    for line in missing:
        _LOG.warning("%s", line)
    return into.root


def _fetch_detector(paths: Paths) -> None:
    from pipelines.commands import face_model

    try:
        face_model.ensure(paths)
    except PipelineError as err:
        _LOG.warning("%s", err)


def _start_phone_page(paths: Paths, bind: str, port: int) -> ThreadingHTTPServer | None:
    from apps.phone_server import make_server, serve_in_background

    try:
        server = make_server(paths.root, host=bind, port=port)
    except PipelineError as err:
        _LOG.warning("phone page: not served. %s", err)
        return None
    serve_in_background(server)
    return server


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    limit = time.monotonic() + _START_S
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise ConfigError(
                f"app: Streamlit ended with exit code {process.returncode}; the lines above say "
                f"why. Try another --port."
            )
        with socket.socket() as probe:
            if probe.connect_ex((_LOOPBACK, port)) == 0:
                return
        time.sleep(0.1)
    raise ConfigError(f"app: Streamlit did not answer within {_START_S} s. Try again.")


def _announce(address: str, environment: Mapping[str, str], *, is_lan: bool) -> None:
    _LOG.info("Apps:        http://%s", address)
    if _PHONE in environment:
        _LOG.info("Phone page:  %s", environment[_PHONE])
    where = "this computer's whole local network" if is_lan else "this computer alone"
    _LOG.info("Open to %s. Stop with Ctrl-C.", where)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

"""What a process and its children did to the network and to files, native code included.

`record` runs a command under strace, in a network namespace without a way out: a connection is
refused by the kernel, and recorded. `parse` reads strace's lines and is pure.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_DNS_PORT = 53
_TIMEOUT_S = 240
_SEND = ("connect", "sendto", "sendmsg", "sendmmsg")
_OPEN = ("open", "openat", "openat2")
_MOVE = ("chdir", "fchdir")
_BEGIN = ("clone", "clone3", "fork", "vfork")
#: Make, change or remove a name, whatever their flags.
_CHANGE = (
    *("creat", "mkdir", "mkdirat", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat"),
    *("rename", "renameat", "renameat2", "truncate", "unlink", "unlinkat", "rmdir"),
)
#: First in each namespace, where even the loopback device is down. Then the command takes over.
_UP = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
os.execvp(sys.argv[1], sys.argv[1:])
"""
_LINE = re.compile(r"^(?:\[pid +)?(\d+)\]? +(.*)$")
_ADDRESS = re.compile(
    r"sin6?_port=htons\((\d+)\)(?:.*?)(?:inet_addr\(\"|inet_pton\(AF_INET6, \")([^\"]+)\""
)
_STRING = r'"((?:[^"\\]|\\.)*)"'
#: A path in a call: behind its folder's descriptor, with the folder's own path as strace's -y says.
_PATH = re.compile(rf"(?:(?:AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>, )?{_STRING}")


@dataclass(frozen=True, slots=True)
class Trace:
    """What was seen."""

    #: ``address:port`` of each attempt to reach another machine, or a name server wherever it is;
    #: refused attempts count.
    contacts: frozenset[str]
    #: Files and folders that were made, opened for writing, renamed or removed; attempts that
    #: failed do not count.
    written: frozenset[Path]

    def outside(self, *allowed: Path) -> set[Path]:
        """What was written that is none of some files, and lies in none of some folders."""
        roots = [path.resolve() for path in allowed]
        return {
            path
            for path in self.written
            if not any(path.resolve().is_relative_to(root) for root in roots)
        }


def parse(lines: Sequence[str], cwd: Path = Path("/")) -> Trace:
    """What lines of ``strace -f -y -o`` say, of a process that began in ``cwd``."""
    calls = list(_calls(lines))
    parents = {
        result: (process, "CLONE_FS" in arguments)
        for process, call, arguments, result in calls
        if call in _BEGIN and result.isdigit()
    }
    places = _Places(cwd, parents)
    contacts, written = set[str](), set[Path]()
    for process, call, arguments, result in calls:
        if call in _SEND:
            for port, address in _ADDRESS.findall(arguments):
                if _is_elsewhere(address) or int(port) == _DNS_PORT:
                    contacts.add(f"{address}:{port}")
        elif result.startswith("-1"):
            continue
        elif call in _MOVE:
            places.of(process)[0] = _place(places.of(process)[0], call, arguments)
        elif call in _CHANGE or (call in _OPEN and _is_for_writing(arguments)):
            written.update(_paths(places.of(process)[0], call, arguments))
    return Trace(frozenset(contacts), frozenset(written))


class _Places:
    """The working folder of each process; threads share one. A box holds it, so that they can."""

    def __init__(self, cwd: Path, parents: Mapping[str, tuple[str, bool]]) -> None:
        self._first, self._parents = cwd, parents
        self._boxes: dict[str, list[Path]] = {}

    def of(self, process: str) -> list[Path]:
        if process not in self._boxes:
            parent, is_shared = self._parents.get(process, (None, False))
            box = self.of(parent) if parent is not None else [self._first]
            self._boxes[process] = box if is_shared else list(box)
        return self._boxes[process]


def _calls(lines: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Process, call, arguments and result; a call that another thread interrupted is joined."""
    begun: dict[str, str] = {}
    for line in lines:
        found = _LINE.match(line)
        if found is None:
            continue
        process, text = found.groups()
        if text.endswith("<unfinished ...>"):
            begun[process] = text.removesuffix("<unfinished ...>").rstrip()
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)$", text)
        if resumed is not None:
            text = begun.pop(process, "") + resumed[1]
        call, bracket, rest = text.partition("(")
        arguments, equals, result = rest.rpartition(" = ")
        if bracket and equals:
            yield process, call, arguments, result
    # The process ended within these; what they asked for was asked.
    for process, text in begun.items():
        call, _, arguments = text.partition("(")
        yield process, call, arguments, "?"


def _is_elsewhere(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    # "Any address" as a destination is this machine.
    return not ((mapped or parsed).is_loopback or (mapped or parsed).is_unspecified)


def _is_for_writing(arguments: str) -> bool:
    # Flags stand behind the path, which may spell them too.
    flags = _PATH.sub("", arguments)
    return any(flag in flags for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"))


def _paths(place: Path, call: str, arguments: str) -> Iterator[Path]:
    found = _PATH.findall(arguments)
    # What a symbolic link says is no path that is written.
    for folder, name in found[1:] if call.startswith("symlink") else found:
        yield Path(os.path.normpath(place / _plain(folder) / _plain(name)))


def _place(place: Path, call: str, arguments: str) -> Path:
    if call == "fchdir":
        return Path(_plain(arguments.partition("<")[2].rpartition(">")[0]))
    return next(_paths(place, call, arguments))


def _plain(text: str) -> str:
    """A string as strace escapes it, in octal and as C does."""
    data = text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1")
    return os.fsdecode(data)


# -- recording ------------------------------------------------------------------------------------
@functools.cache
def missing() -> str | None:
    """Why nothing can be recorded here, or None."""
    for program in ("strace", "unshare"):
        if shutil.which(program) is None:
            return f"needs {program}"
    with tempfile.TemporaryDirectory() as scratch:
        trial = [*_alone(), *_traced(Path(scratch) / "trace"), "true"]
        done = subprocess.run(trial, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        return f"needs leave to trace in a network namespace ({done.stderr.strip()[-200:]})"
    return None


def _alone() -> list[str]:
    return ["unshare", "--map-root-user", "--net", sys.executable, "-c", _UP]


def _traced(output: Path) -> list[str]:
    how = ["-f", "-y", "-qq", "--seccomp-bpf", "-s", "4096", "-e", "signal=none"]
    calls = ",".join((*_SEND, *_OPEN, *_MOVE, *_BEGIN, *_CHANGE))
    return ["strace", *how, "-e", f"trace={calls}", "-o", str(output)]


def record(
    command: Sequence[str],
    *,
    cwd: Path,
    environ: Mapping[str, str],
    scratch: Path,
    driver: Sequence[str] | None = None,
) -> tuple[Trace, subprocess.CompletedProcess[str]]:
    """What a command did, and how it ended.

    Args:
        environ: its whole environment.
        scratch: a folder for the trace.
        driver: Python, and its own arguments, that starts the command itself: the last of
            ``sys.argv``. It is not traced: someone who uses a server in the same namespace.
    """
    output = scratch / "trace"
    traced = [*_traced(output), *command]
    inside = traced if driver is None else [sys.executable, "-c", *driver, *traced]
    process = subprocess.Popen(
        [*_alone(), *inside],
        cwd=cwd,
        env=dict(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, complained = process.communicate(timeout=_TIMEOUT_S)
    finally:
        # What it left running, a server above all.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.CompletedProcess(command, process.returncode, said, complained)
    lines = output.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    return parse(lines, cwd), done

"""The git program, confined: one new repository, no prompts, no hooks, bounded size."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from pipelines.data.sources.addresses import public_words
from pipelines.data.sources.intake import CHUNK_BYTES
from pipelines.errors import SourceError

#: Transports that git may use: `ext::` and the like run programs.
_PROTOCOLS = "file:http:https:ssh"
#: A transfer slower than 1 byte/s for so many seconds counts as broken.
_STALL_S = 60
#: Seconds between two looks at the size of a running transfer.
_WATCH_S = 0.5
#: Variables that would turn git to another repository, as inside a git hook.
_FOREIGN = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CEILING_DIRECTORIES",
)


class Git:
    """git, confined to one new repository: no prompts, no hooks, no programs of the repository."""

    def __init__(self, what: str, folder: Path, max_bytes: int) -> None:
        self.what = what
        self._folder = folder
        self._max_bytes = max_bytes
        settings = {
            "core.hooksPath": os.devnull,
            "core.symlinks": "false",
            "core.fsmonitor": "false",
            "protocol.ext.allow": "never",
            "submodule.recurse": "false",
            "gc.auto": "0",
            "advice.detachedHead": "false",
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": str(_STALL_S),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._command = ["git", "--literal-pathspecs", *options]
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _FOREIGN},
            "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
            "LC_ALL": "C",
        }

    def reach(self, location: str) -> None:
        """Nothing, if the repository answers."""
        self._transfer([*self._command, "ls-remote", "--quiet", "--", location, "HEAD"], "")

    def clone(self, location: str) -> None:
        """Fetch the commits and folders of a repository, without its files where it can do so."""
        arguments = ["clone", "--quiet", "--no-checkout", "--filter=blob:none", "--template="]
        self._transfer([*self._command, *arguments, "--", location, str(self._folder)], "")

    def fetch(self, object_ids: list[str]) -> None:
        """Fetch objects, all in one go."""
        # The very call that git makes for a missing blob, which it would make for each one alone.
        arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--filter=blob:none"]
        command = [*self.inside("-c", "fetch.negotiationAlgorithm=noop"), *arguments]
        given = "".join(f"{object_id}\n" for object_id in object_ids)
        self._transfer([*command, "--recurse-submodules=no", "--stdin", "origin"], given)

    def inside(self, *arguments: str) -> list[str]:
        """A command line that runs in the repository."""
        return [*self._command, "-C", str(self._folder), *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A running command with pipes."""
        return subprocess.Popen(
            self.inside(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )

    def ask(self, *arguments: str) -> bytes | None:
        """What a command says, or None if it fails."""
        done = subprocess.run(
            self.inside(*arguments), capture_output=True, check=False, env=self._environment
        )
        return done.stdout if done.returncode == 0 else None

    def _transfer(self, command: list[str], given: str) -> None:
        """Run a command that fills the disk, and end it where it fills too much."""
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as asked:
            asked.write(given.encode())
            asked.seek(0)
            try:
                process = subprocess.Popen(
                    command,
                    stdin=asked,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    env=self._environment,
                    start_new_session=True,
                )
            except FileNotFoundError as err:
                raise SourceError(
                    f"{self.what}: git is not installed. Install it, or give the images as a "
                    f"folder or an archive."
                ) from err
            try:
                while not _has_ended(process):
                    self._check_bound()
                self._check_bound()
            finally:
                # git's transport helpers are processes of the same session.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
            if process.returncode != 0:
                raise self._failure(said)

    def _check_bound(self) -> None:
        n_bytes = sum(
            _size(Path(folder) / name)
            for folder, _, names in os.walk(self._folder)
            for name in names
        )
        if n_bytes > self._max_bytes:
            raise SourceError(
                f"{self.what}: the repository takes more than {self._max_bytes:,} bytes. If that "
                f"is right, raise `max_bytes` of the source in params.yaml."
            )

    def _failure(self, said: IO[bytes]) -> SourceError:
        said.seek(0)
        lines = said.read(CHUNK_BYTES).decode("utf-8", "replace").splitlines()
        telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote: "))]
        first = " ".join((telling or lines or ["git gave no reason"])[0].split())
        return SourceError(
            f"{self.what}: git says: {public_words(first)} Check `source` in "
            f"params.yaml, and that this machine may read the repository without a password."
        )


def check_reach(what: str, repository: str) -> None:
    """Nothing, if a repository answers; no more than its newest commit's name is asked for.

    Args:
        what: the task, for messages.
        repository: its address.

    Raises:
        SourceError: if git cannot reach it or may not read it, with its own first line.
    """
    with tempfile.TemporaryDirectory() as folder:
        Git(what, Path(folder), max_bytes=1 << 20).reach(repository)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        # git renames its temporary files while we look.
        return 0


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_WATCH_S)
    except subprocess.TimeoutExpired:
        return False
    return True

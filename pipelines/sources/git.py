"""Images from a folder of a git repository, at one revision; the git program is confined.

Nothing is checked out: the commit's file list is read, the blobs that are wanted are fetched, and
their bytes are streamed out of git's store. So no link, hook, filter, submodule or line-ending rule
of the repository can do anything, and of a large repository only the images travel. The program
runs in one new repository, without prompts and hooks, with its size bounded.

References:
    git-clone(1), ``--filter``; "Partial Clone Design Notes" of git's technical documentation.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from pipelines.atomic import storage_errors
from pipelines.card import GitSource
from pipelines.errors import SourceError
from pipelines.locks import hold
from pipelines.progress import track
from pipelines.sources.download import CHUNK_BYTES, is_address, public_name, public_words
from pipelines.sources.intake import Facts, Intake, safe_path

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class _Blob(NamedTuple):
    path: PurePosixPath
    object_id: str


def fetch_git(source: GitSource, intake: Intake, root: Path, downloads_dir: Path) -> Facts:
    """Take the images out of a repository.

    Args:
        root: project root, for a relative path.
        downloads_dir: where the repository lies in the meantime.

    Returns:
        The repository's name, the revision, and the commit that it meant.

    Raises:
        SourceError: if git fails (with its own first line), or there is no such revision or folder.
        StorageError: if the disk is full.
    """
    what = intake.what
    for key, value in (("repository", source.repository), ("revision", source.revision)):
        if not value or value.startswith("-"):
            raise SourceError(
                f"{what}: source.{key}: {value!r} is not a name that git may be given."
            )
    prefix = safe_path(source.subfolder, f"{what}: source.subfolder")
    key = "git-" + hashlib.sha256(source.repository.encode()).hexdigest()[:16]
    clone_dir = downloads_dir / key
    with hold(downloads_dir / f"{key}.lock", f"fetch {what}"), storage_errors(clone_dir):
        shutil.rmtree(clone_dir, ignore_errors=True)
        try:
            git = _Git(what, clone_dir, source.max_bytes)
            # What is no folder here, such as an address or host:path, is git's own to judge.
            local = root / source.repository
            is_local = not is_address(source.repository) and local.exists()
            git.clone(str(local) if is_local else source.repository)
            commit = _resolve(git, source.revision)
            blobs = [blob for blob in _list(git, commit, prefix, intake) if intake.wants(blob.path)]
            _bring(git, commit, blobs)
            _take(git, blobs, intake)
        finally:
            shutil.rmtree(clone_dir, ignore_errors=True)
    facts: Facts = {
        "repository": public_name(source.repository),
        "revision": source.revision,
        "commit": commit,
    }
    if prefix.parts:
        facts["subfolder"] = str(prefix)
    return facts


def check_reach(what: str, repository: str) -> None:
    """Nothing, if a repository answers; no more than its newest commit's name is asked for.

    Raises:
        SourceError: if git cannot reach it or may not read it, with its own first line.
    """
    with tempfile.TemporaryDirectory() as folder:
        _Git(what, Path(folder), max_bytes=1 << 20).reach(repository)


def _resolve(git: _Git, revision: str) -> str:
    candidates = [f"refs/tags/{revision}", f"refs/remotes/origin/{revision}"]
    if re.fullmatch(r"[0-9a-f]{7,64}|HEAD", revision):
        candidates.append(revision)
    for candidate in candidates:
        found = git.ask("rev-parse", "--verify", "--quiet", f"{candidate}^{{commit}}")
        if found:
            return found.decode().strip()
    raise SourceError(
        f"{git.what}: the repository has no tag, branch or commit {revision!r}. Mend "
        f"`source.revision` in params.yaml."
    )


def _list(git: _Git, commit: str, prefix: PurePosixPath, intake: Intake) -> Iterator[_Blob]:
    """Files of a commit below a folder; counts links and submodules."""
    tree = f"{commit}:{prefix}" if prefix.parts else commit
    listed = git.ask("ls-tree", "-r", "-z", "--full-tree", tree)
    if not listed:
        raise SourceError(
            f"{git.what}: commit {commit[:12]} has no files below {str(prefix)!r}. Mend "
            f"`source.subfolder` in params.yaml."
        )
    for entry in listed.rstrip(b"\0").split(b"\0"):
        facts, _, name = entry.partition(b"\t")
        mode, kind, object_id = facts.decode().split()
        if kind != "blob" or mode not in {"100644", "100755", "100664"}:
            intake.skipped["link" if mode == "120000" else "special"] += 1
            continue
        yield _Blob(safe_path(os.fsdecode(name), git.what), object_id)


def _bring(git: _Git, commit: str, blobs: list[_Blob]) -> None:
    """Fetch those blobs that the clone left behind."""
    listed = git.ask("rev-list", "--objects", "--no-walk", "--missing=print", commit) or b""
    missing = {line[1:].decode() for line in listed.splitlines() if line.startswith(b"?")}
    if wanted := sorted({blob.object_id for blob in blobs} & missing):
        git.fetch(wanted)


def _take(git: _Git, blobs: list[_Blob], intake: Intake) -> None:
    with git.start("cat-file", "--batch") as process:
        asked, told = process.stdin, process.stdout
        if asked is None or told is None:
            raise SourceError(f"{git.what}: git cannot be talked to.")
        for blob in track(blobs, f"{git.what}: unpacking", len(blobs)):
            asked.write(f"{blob.object_id}\n".encode())
            asked.flush()
            header = told.readline().split()
            if len(header) != 3 or header[1] != b"blob":
                raise SourceError(
                    f"{git.what}: the repository lacks the file {str(blob.path)!r} (object "
                    f"{blob.object_id[:12]}). Run the same command again."
                )
            intake.check_room(int(header[2]))
            intake.add(blob.path, _blob_chunks(git, blob, told, int(header[2])))
            told.read(1)  # the newline after each object


def _blob_chunks(git: _Git, blob: _Blob, told: IO[bytes], n_bytes: int) -> Iterator[bytes]:
    left = n_bytes
    while left:
        chunk = told.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise SourceError(f"{git.what}: git ended in the middle of {str(blob.path)!r}.")
        if left == n_bytes and chunk.startswith(_LFS_POINTER):
            raise SourceError(
                f"{git.what}: {str(blob.path)!r} is a Git LFS pointer, not an image. Fetch the "
                f"images with `git lfs pull` and give them as a folder."
            )
        left -= len(chunk)
        yield chunk


# -- git command ----------------------------------------------------------------------------------
#: Transports that git may use: `ext::` and the like run programs.
_PROTOCOLS = "file:http:https:ssh"
#: A transfer slower than 1 byte/s for so many seconds counts as broken.
_STALL_S = 60
#: Seconds between two looks at the size of a running transfer.
_WATCH_S = 0.5
#: Variables that would turn git to another repository, as inside a git hook.
_FOREIGN = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"),
    *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_CEILING_DIRECTORIES"),
)


class _Git:
    """git, confined to one new repository: no prompts, no hooks, no programs of the repository."""

    def __init__(self, what: str, folder: Path, max_bytes: int) -> None:
        self.what = what
        self._folder = folder
        self._max_bytes = max_bytes
        settings = {
            "core.hooksPath": os.devnull,
            "core.fsmonitor": "false",
            "gc.auto": "0",
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": str(_STALL_S),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._command = ["git", *options]
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in _FOREIGN},
            "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
            "LC_ALL": "C",
        }

    def reach(self, location: str) -> None:
        """Nothing, if the repository answers."""
        self._transfer([*self._command, "ls-remote", "--quiet", "--", location, "HEAD"], "")

    def clone(self, location: str) -> None:
        """Fetch the commits and folders of a repository, without its files where it can do so."""
        options = ["--quiet", "--no-checkout", "--filter=blob:none", "--template="]
        self._transfer([*self._command, "clone", *options, "--", location, str(self._folder)], "")

    def fetch(self, object_ids: list[str]) -> None:
        """Fetch objects, all in one go."""
        # The very call that git makes for a missing blob, which it would make for each one alone.
        command = self._inside("-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet")
        command += ["--no-tags", "--no-write-fetch-head", "--filter=blob:none"]
        command += ["--recurse-submodules=no", "--stdin", "origin"]
        self._transfer(command, "".join(f"{object_id}\n" for object_id in object_ids))

    def _inside(self, *arguments: str) -> list[str]:
        return [*self._command, "-C", str(self._folder), *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A running command with pipes."""
        return subprocess.Popen(
            self._inside(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self._environment,
        )

    def ask(self, *arguments: str) -> bytes | None:
        """What a command says, or None if it fails."""
        done = subprocess.run(
            self._inside(*arguments), capture_output=True, check=False, env=self._environment
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
                has_ended = False
                while not has_ended:
                    with suppress(subprocess.TimeoutExpired):
                        process.wait(_WATCH_S)
                        has_ended = True
                    self._check_bound()
            finally:
                # git's transport helpers are processes of the same session.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGTERM)
                    process.wait()
            if process.returncode != 0:
                raise self._failure(said)

    def _check_bound(self) -> None:
        n_bytes = 0
        for folder, _, names in os.walk(self._folder):
            for name in names:
                # git renames its temporary files while we look.
                with suppress(FileNotFoundError):
                    n_bytes += Path(folder, name).lstat().st_size
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

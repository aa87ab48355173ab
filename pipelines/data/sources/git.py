"""Images from a folder of a git repository, at one revision.

Nothing is checked out: the commit's file list is read, the blobs that are wanted are fetched, and
their bytes are streamed out of git's store. So no link, hook, filter, submodule or line-ending rule
of the repository can do anything, and of a large repository only the images travel.

References:
    git-clone(1), ``--filter``; "Partial Clone Design Notes" of git's technical documentation.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pipelines.atomic import storage_errors
from pipelines.config_sources import GitSource
from pipelines.data.sources.addresses import is_address, public_name
from pipelines.data.sources.git_command import Git
from pipelines.data.sources.intake import Facts, Intake, safe_path
from pipelines.data.sources.streams import CHUNK_BYTES
from pipelines.errors import SourceError
from pipelines.locks import hold
from pipelines.progress import track

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True, slots=True)
class _Blob:
    path: PurePosixPath
    object_id: str


def fetch_git(source: GitSource, intake: Intake, root: Path, downloads_dir: Path) -> Facts:
    """Take the images out of a repository.

    Args:
        source: names the repository, the revision and the folder.
        intake: takes the files.
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
            git = Git(what, clone_dir, source.max_bytes)
            git.clone(_location(source.repository, root))
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


def _location(repository: str, root: Path) -> str:
    # What is neither an address nor a folder here, such as host:path, is git's own to judge.
    local = root / repository
    return str(local) if not is_address(repository) and local.exists() else repository


def _resolve(git: Git, revision: str) -> str:
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


def _list(git: Git, commit: str, prefix: PurePosixPath, intake: Intake) -> Iterator[_Blob]:
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


def _bring(git: Git, commit: str, blobs: list[_Blob]) -> None:
    """Fetch those blobs that the clone left behind."""
    listed = git.ask("rev-list", "--objects", "--no-walk", "--missing=print", commit) or b""
    missing = {line[1:].decode() for line in listed.splitlines() if line.startswith(b"?")}
    wanted = sorted({blob.object_id for blob in blobs} & missing)
    if wanted:
        git.fetch(wanted)


def _take(git: Git, blobs: list[_Blob], intake: Intake) -> None:
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


def _blob_chunks(git: Git, blob: _Blob, told: IO[bytes], n_bytes: int) -> Iterator[bytes]:
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

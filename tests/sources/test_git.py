from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.card import GitSource
from pipelines.errors import BusyError, SourceError
from pipelines.locks import hold
from pipelines.sources.git import fetch_git
from pipelines.sources.intake import Facts, Intake
from tests.file_tree import file_tree


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.check_output(command, text=True).strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "fish set"
    (folder / "data/raw/carp").mkdir(parents=True)
    (folder / "data/rawer").mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch=main")
    # This repository itself keeps the bytes as they are.
    (folder / ".git/info").mkdir(exist_ok=True)
    (folder / ".git/info/attributes").write_text("* -text -filter\n")
    (folder / "data/raw/carp/größe\n1.jpg").write_bytes(b"old\r\n")
    (folder / "data/raw/carp/same.jpg").write_bytes(b"old\r\n")
    (folder / "data/raw/records.csv").write_bytes(b"path,label\r\n")
    (folder / "data/raw/notes.txt").write_bytes(b"notes")
    (folder / "data/raw/carp/link.jpg").symlink_to("/etc/passwd")
    (folder / "data/rawer/other.jpg").write_bytes(os.urandom(50_000))
    # Rules that would change the bytes, or run a program, if anything were checked out.
    (folder / ".gitattributes").write_text("*.jpg text eol=lf filter=evil\n*.csv text eol=lf\n")
    (folder / "top.png").write_bytes(b"top")
    _git(folder, "add", "--all")
    _git(folder, "commit", "--quiet", "-m", "one")
    _git(folder, "tag", "v1")
    (folder / "data/raw/carp/same.jpg").write_bytes(b"new")
    _git(folder, "commit", "--quiet", "-am", "two")
    _git(folder, "branch", "side")
    return folder


@pytest.fixture
def fetch(tmp_path: Path, intake: Callable[..., Intake]) -> Callable[..., Facts]:
    def run(repository: str | Path, revision: str, **options: object) -> Facts:
        document = {"kind": "git", "repository": str(repository), "revision": revision, **options}
        source = GitSource.model_validate(document)
        made = intake(source.max_bytes)
        facts = fetch_git(source, made, tmp_path, tmp_path / "downloads")
        return {**facts, "n_links": made.skipped["link"]}

    return run


@pytest.mark.parametrize("can_filter", [True, False])
@pytest.mark.parametrize("form", ["path", "relative", "file"])
def test_fetch_git_subfolder_at_a_tag(fetch, repository, tmp_path, form, can_filter):
    _git(repository, "config", "uploadpack.allowFilter", str(can_filter).lower())
    location = {"path": str(repository), "relative": "fish set", "file": repository.as_uri()}[form]
    facts = fetch(location, "v1", subfolder="data/raw")
    assert facts == {
        "repository": repository.as_uri() if form == "file" else "fish set",
        "revision": "v1",
        "commit": _git(repository, "rev-parse", "v1"),
        "subfolder": "data/raw",
        "n_links": 1,
    }
    assert file_tree(tmp_path / "raw") == {
        "carp/größe\n1.jpg": b"old\r\n",
        "carp/same.jpg": b"old\r\n",
        "records.csv": b"path,label\r\n",
    }
    assert [path.suffix for path in (tmp_path / "downloads").iterdir()] == [".lock"]


@pytest.mark.parametrize("revision", ["main", "side", "HEAD", "commit", "short"])
def test_fetch_git_other_revisions_are_resolved(fetch, repository, tmp_path, revision):
    head = _git(repository, "rev-parse", "HEAD")
    given = {"commit": head, "short": head[:10]}.get(revision, revision)
    facts = fetch(repository.as_uri(), given)
    assert facts["commit"] == head
    assert file_tree(tmp_path / "raw")["data/raw/carp/same.jpg"] == b"new"
    assert file_tree(tmp_path / "raw")["top.png"] == b"top"


def test_fetch_git_brings_only_what_is_wanted(fetch, repository, tmp_path):
    _git(repository, "config", "uploadpack.allowFilter", "true")
    # The 50,000 random bytes in data/rawer would pass this bound.
    fetch(repository.as_uri(), "main", subfolder="data/raw", max_bytes=45_000)
    assert len(file_tree(tmp_path / "raw")) == 3


@pytest.mark.parametrize("max_bytes", [45_000, 100])
def test_fetch_git_bound_holds(fetch, repository, max_bytes):
    _git(repository, "config", "uploadpack.allowFilter", "true")
    with pytest.raises(SourceError, match="more than"):
        fetch(repository.as_uri(), "main", max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"revision": "v2"}, "no tag, branch or commit 'v2'"),
        ({"revision": "0" * 40}, "no tag, branch or commit"),
        ({"revision": "--upload-pack=touch evil"}, "not a name"),
        ({"revision": ""}, "not a name"),
        ({"repository": "--upload-pack=touch evil"}, "not a name"),
        ({"repository": "ext::sh -c 'touch evil'"}, "git says: fatal: transport 'ext' not allowed"),
        ({"repository": "absent"}, "git says: fatal: .*absent"),
        ({"repository": "file:///absent/repo"}, "git says: fatal: .*absent"),
        ({"subfolder": "absent"}, "no files below 'absent'"),
        ({"subfolder": "../data"}, "climbs out"),
        ({"subfolder": "/data"}, "is absolute"),
    ],
)
def test_fetch_git_refusals(fetch, repository, tmp_path, options, match, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"repository": str(repository), "revision": "main", **options}
    with pytest.raises(SourceError, match=match) as caught:
        fetch(given.pop("repository"), given.pop("revision"), **given)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("**/evil"))
    assert file_tree(tmp_path / "raw") == {}


def test_fetch_git_error_hides_the_password(fetch):
    # Port 9 (discard) of this machine: nobody listens.
    with pytest.raises(SourceError) as caught:
        fetch("http://me:secret@127.0.0.1:9/fish.git", "main")
    assert "git says: fatal:" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_fetch_git_lfs_pointer_is_an_error(fetch, repository):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (repository / "top.png").write_text(pointer)
    _git(repository, "commit", "--quiet", "-am", "three")
    with pytest.raises(SourceError, match=r"'top.png' is a Git LFS pointer"):
        fetch(repository, "main")


def test_fetch_git_runs_no_filter_or_hook(fetch, repository, tmp_path, monkeypatch):
    # What a user's own settings say is not to be run on somebody else's files either.
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch '{tmp_path}/evil'\n")
        (hooks / name).chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f'[filter "evil"]\n smudge = touch {tmp_path}/evil\n required = true\n'
        f"[core]\n hooksPath = {hooks}\n fsmonitor = touch {tmp_path}/evil\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    fetch(repository.as_uri(), "v1", subfolder="data/raw")
    assert not (tmp_path / "evil").exists()
    assert len(file_tree(tmp_path / "raw")) == 3


def test_fetch_git_inside_a_git_hook_stays_in_its_own_repository(
    fetch, repository, tmp_path, monkeypatch
):
    other = tmp_path / "other"
    other.mkdir()
    _git(other, "init", "--quiet")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    facts = fetch(repository, "v1")
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert facts["commit"] == _git(repository, "rev-parse", "v1")
    assert not (other / ".git/FETCH_HEAD").exists()


def test_fetch_git_twice_at_once_is_busy(fetch, repository, tmp_path):
    fetch(repository, "v1")
    lock = next((tmp_path / "downloads").glob("*.lock"))
    with hold(lock, "another fetch"), pytest.raises(BusyError):
        fetch(repository, "v1")


def test_fetch_git_without_git_says_so(fetch, repository, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="git is not installed"):
        fetch(repository, "v1")

"""A clone has the same bytes wherever it is made: DVC and the code lists hash them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import ROOT, ran


def git(*arguments: str, cwd: Path) -> str:
    return ran("git", *arguments, cwd=cwd).stdout


def clone(folder: Path, *options: str, attributes: bool = True) -> dict[str, bytes]:
    """What a clone of HEAD has on the disk, by name."""
    folder.mkdir()
    git("clone", "--quiet", "--shared", "--no-checkout", *options, str(ROOT), ".", cwd=folder)
    if not attributes:
        (folder / ".git/info/attributes").write_text("* !text !eol\n")
    git("checkout", "--quiet", "HEAD", cwd=folder)
    names = git("ls-tree", "-r", "-z", "--name-only", "HEAD", cwd=folder).split("\0")
    return {name: (folder / name).read_bytes() for name in names if name}


@pytest.mark.parametrize("option", ["core.autocrlf=true", "core.eol=crlf"])
def test_clone_of_windows_has_the_same_bytes(tmp_path, option):
    plain = clone(tmp_path / "plain", "-c", "core.autocrlf=false")
    assert "dvc.yaml" in plain
    other = clone(tmp_path / "other", "-c", option)
    assert [name for name in plain if other[name] != plain[name]] == []


def test_without_gitattributes_the_bytes_would_differ(tmp_path):
    plain = clone(tmp_path / "plain", "-c", "core.autocrlf=false")
    other = clone(tmp_path / "other", "-c", "core.autocrlf=true", attributes=False)
    assert other["dvc.yaml"] == plain["dvc.yaml"].replace(b"\n", b"\r\n")

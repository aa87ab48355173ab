"""Outputs are links into DVC's cache: who writes again must not change what is kept there."""

from __future__ import annotations

from pipelines import atomic
from tests.processes import ROOT, dvc


def test_writing_again_leaves_the_cache_as_it_was(tmp_path):
    (tmp_path / ".dvc").mkdir()
    dvc(tmp_path, "init", "--no-scm", "-f")
    links = (ROOT / ".dvc/config").read_text().partition("[cache]")
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n" + "".join(links[1:]))
    (tmp_path / "raw").mkdir()
    for name in ("raw/a.txt", "single.txt"):
        (tmp_path / name).write_text(f"old {name}")
    dvc(tmp_path, "add", "raw", "single.txt")
    kept = {
        path: path.read_bytes() for path in (tmp_path / ".dvc/cache").rglob("*") if path.is_file()
    }
    # On the disk once.
    assert (tmp_path / "raw/a.txt").stat().st_nlink == 2
    assert (tmp_path / "single.txt").stat().st_nlink == 2
    atomic.write_text(tmp_path / "single.txt", "new")
    with atomic.new_folder(tmp_path / "raw") as folder:
        (folder / "a.txt").write_text("new")
    assert (tmp_path / "raw/a.txt").read_text() == (tmp_path / "single.txt").read_text() == "new"
    assert {path: path.read_bytes() for path in kept} == kept

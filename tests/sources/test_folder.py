from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.card import FolderSource
from pipelines.errors import SourceError
from pipelines.sources.folder import fetch_folder
from pipelines.sources.intake import Intake
from tests.file_tree import file_tree


@pytest.fixture
def fetch(tmp_path: Path, intake: Callable[..., Intake]) -> Callable[..., Intake]:
    """Fetches a folder, by default ``set``."""

    def run(path: str | Path = "set", **bounds: int) -> Intake:
        made = intake(**bounds)
        facts = fetch_folder(FolderSource(kind="folder", path=str(path)), made, tmp_path)
        assert facts == {"folder": "set"}
        return made

    return run


def _make(path: Path, data: bytes = b"1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_fetch_folder_keeps_odd_names_and_leaves_the_rest(fetch, tmp_path):
    top = tmp_path / "set"
    odd = [b"cats/gr\xc3\xb6\xc3\x9fe.jpg", b"cats/new\nline.JPG", b"dogs/no\xfftext.png"]
    taken = {os.fsdecode(name): name for name in odd} | {"records.csv": b"1"}
    for name, data in taken.items():
        _make(top / name, data)
    for name in ("readme.txt", "cats/.hidden.jpg", ".git/a.jpg", "cats/notes.csv", "Thumbs.db"):
        _make(top / name)
    assert fetch().skipped == {"hidden": 2, "system": 1, "other": 2}
    assert file_tree(tmp_path / "raw") == taken


def test_fetch_folder_of_links_is_copied_by_content_and_accounted_for(fetch, tmp_path):
    top = tmp_path / "disk/set"
    pool = tmp_path / "pool"
    (tmp_path / "here").symlink_to(top)
    _make(pool / "7.jpg", b"seven")
    _make(pool / "dogs/1.jpg", b"one")
    _make(pool / "dogs/.git/x.jpg")
    (pool / "dogs/home").symlink_to(top)
    _make(top / "cats/a.jpg", b"A")
    os.mkfifo(top / "cats/pipe.jpg")
    (top / "cats/again").symlink_to(top)
    (top / "cats/self.jpg").symlink_to("self.jpg")
    (top / "cats/outside.jpg").symlink_to(pool / "7.jpg")
    (top / "cats/inside.jpg").symlink_to("a.jpg")
    (top / "cats/nothing.jpg").symlink_to("absent")
    (top / "cats/null.jpg").symlink_to("/dev/null")
    (top / "dogs").symlink_to(pool / "dogs")
    made = fetch("here")
    assert file_tree(tmp_path / "raw") == {
        "cats/a.jpg": b"A",
        "cats/inside.jpg": b"A",
        "cats/outside.jpg": b"seven",
        "dogs/1.jpg": b"one",
    }
    assert made.skipped == {"link loop": 2, "dangling link": 2, "special": 2, "hidden": 1}
    assert made.account.n_files == 11
    assert not any(path.is_symlink() for path in (tmp_path / "raw").rglob("*"))


def test_fetch_folder_whose_links_multiply_ends_at_the_bound(fetch, tmp_path):
    # Each level has two ways to the next: 2^40 paths, and not one loop.
    for level in range(40):
        (tmp_path / "set" / f"{level}").mkdir(parents=True)
    for level in range(39):
        for name in "ab":
            (tmp_path / "set" / f"{level}" / name).symlink_to(tmp_path / "set" / f"{level + 1}")
    with pytest.raises(SourceError, match="more than 1,000 files"):
        fetch(max_files=1_000)


def test_fetch_folder_content_decides_where_a_name_has_no_suffix(fetch, tmp_path):
    top = tmp_path / "set"
    images = {
        "covid/IM0001": bytes(128) + b"DICM" + b"\x02",
        "covid/1.2.840.10008.55": bytes(128) + b"DICM",
        "normal/photo": b"\xff\xd8\xff\xe0 and so on",
    }
    for name, data in {**images, "normal/README": b"not a picture", "normal/empty": b""}.items():
        _make(top / name, data)
    assert fetch().account.as_json()["passed_over"] == {"no images": 2}
    assert file_tree(tmp_path / "raw") == images


def test_fetch_folder_labels_by_pattern_pool_what_publishers_split(intake, tmp_path):
    top = tmp_path / "set"
    for name in ("train/Rot_1/a.jpg", "val/Rot_1/a.jpg", "train/Blau/b.jpg", "other/c.jpg"):
        _make(top / name, name.encode())
    _make(top / "train/Rot_1/a_original_2.jpg")
    labels = {"*/Rot_*": "red", "*/Blau/*": "blue"}
    source = FolderSource(kind="folder", path="set", labels=labels, leave_out=("*_original_*",))
    made = intake(picked=source)
    fetch_folder(source, made, tmp_path)
    assert file_tree(tmp_path / "raw") == {
        "blue/train/Blau/b.jpg": b"train/Blau/b.jpg",
        "red/train/Rot_1/a.jpg": b"train/Rot_1/a.jpg",
        "red/val/Rot_1/a.jpg": b"val/Rot_1/a.jpg",
    }
    assert made.skipped == {"left out": 1, "unlabelled": 1}


def test_fetch_folder_names_of_macos_arrive_composed_and_once(fetch, tmp_path):
    _make(tmp_path / "set/Bla\u0308tter/a.jpg")
    fetch()
    assert file_tree(tmp_path / "raw") == {"Bl\u00e4tter/a.jpg": b"1"}
    _make(tmp_path / "set/Bl\u00e4tter/a.jpg")
    (tmp_path / "raw").rename(tmp_path / "first")
    with pytest.raises(SourceError, match="are one name on this disk") as caught:
        fetch()
    assert "\n" not in str(caught.value)


def test_fetch_folder_deeper_than_pythons_stack(fetch, tmp_path):
    here = tmp_path / "set"
    here.mkdir()
    handle = os.open(here, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    try:
        with pytest.raises(SourceError, match="more than 64 folders deep"):
            fetch()
    finally:
        # pytest's own cleaning calls itself for each level, and would fail.
        subprocess.run(["rm", "-rf", str(here)], check=True)


def test_fetch_folder_image_below_too_many_folders_is_an_error(fetch, tmp_path):
    _make(tmp_path / "set" / Path(*"d" * 63) / "a.jpg")
    fetch()
    _make(tmp_path / "set" / Path(*"e" * 64) / "a.jpg")
    (tmp_path / "raw").rename(tmp_path / "first")
    with pytest.raises(SourceError, match="more than 64 folders deep"):
        fetch()


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("absent", "there is no folder"),
        ("set/a.jpg", "there is no folder"),
        ("s3://bucket/set", "`kind: store`"),
    ],
)
def test_fetch_folder_that_is_none_is_an_error(fetch, tmp_path, path, match):
    _make(tmp_path / "set/a.jpg")
    with pytest.raises(SourceError, match=match):
        fetch(path)


_AS_NOBODY = """
import os, sys
from pathlib import Path
from pipelines.card import FolderSource
from pipelines.sources.folder import fetch_folder
from pipelines.sources.intake import Intake
from pipelines.errors import SourceError
os.setgid(65534)
os.setuid(65534)
tmp = Path(sys.argv[1])
try:
    intake = Intake(tmp / "raw", "fish", max_bytes=99)
    fetch_folder(FolderSource(kind="folder", path="set"), intake, tmp)
except SourceError as err:
    sys.stdout.write(f"SourceError: {err}")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("closed", ["cats/a.jpg", "cats"])
def test_fetch_folder_unreadable_names_the_file(tmp_path, closed):
    _make(tmp_path / "set/cats/a.jpg")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw").chmod(0o777)
    (tmp_path / "set" / closed).chmod(0)
    # pytest's own folders are closed to others.
    opened = [folder for folder in tmp_path.parents if folder.stat().st_mode & 0o5 != 0o5]
    modes = {folder: folder.stat().st_mode for folder in [tmp_path, *opened]}
    try:
        for folder in modes:
            folder.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", _AS_NOBODY, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert done.stdout.startswith("SourceError: ")
    assert closed in done.stdout
    assert "Permission denied" in done.stdout
    assert "\n" not in done.stdout

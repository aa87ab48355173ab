from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.commands.predict import meant_by

#: By name, what of it is passed over; None: nothing.
FILES = {
    "photos/a.jpg": None,
    "photos/b.PNG": None,
    "photos/deep/down/c.jpeg": None,
    "photos/odd[1].jpg": None,
    "photos/notes.txt": "other",
    "photos/records.csv": "table",
    "photos/.hidden.jpg": "hidden",
    "photos/._a.jpg": "hidden",
    "photos/@eaDir/a.jpg": "system",
    "photos/deep/Thumbs.db": "system",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str) -> list[str]:
    meant = meant_by([Path(argument) for argument in arguments])
    assert meant.complaints == []
    return [file.as_posix() for file in meant.files]


def test_folder_is_looked_through_and_the_account_adds_up(tree):
    meant = meant_by([Path("photos")])
    assert sorted(file.as_posix() for file in meant.files) == [
        *("photos/a.jpg", "photos/b.PNG", "photos/deep/down/c.jpeg", "photos/odd[1].jpg")
    ]
    passed = [kind for kind in FILES.values() if kind]
    assert meant.n_passed_over == {kind: passed.count(kind) for kind in passed}
    assert len(meant.files) + meant.n_passed_over.total() == len(FILES)
    assert meant.note.startswith("passed over 6: ")
    assert "2 hidden" in meant.note


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.jpg", ["photos/a.jpg", "photos/odd[1].jpg"]),
        ("photos/?.jpg", ["photos/a.jpg"]),
        ("photos/**/*.jp*g", ["photos/a.jpg", "photos/deep/down/c.jpeg", "photos/odd[1].jpg"]),
        ("**/c.jpeg", ["photos/deep/down/c.jpeg"]),
        # A folder that fits is a folder.
        ("photos/d*", ["photos/deep/down/c.jpeg"]),
        ("**/down", ["photos/deep/down/c.jpeg"]),
        # What exists under the very name is that.
        ("photos/odd[1].jpg", ["photos/odd[1].jpg"]),
    ],
)
def test_pattern(tree, pattern, expected):
    assert names(pattern) == expected
    assert names(str(tree / pattern)) == [str(tree / name) for name in expected]


def test_system_folders_are_passed_over_by_patterns_too(tree):
    meant = meant_by([Path("photos/**/a.jpg")])
    assert [file.as_posix() for file in meant.files] == ["photos/a.jpg"]
    assert meant.n_passed_over == {"system": 1}


def test_file_that_is_named_is_taken_as_it_is(tree):
    assert names("photos/.hidden.jpg", "photos/notes.txt", "absent.jpg") == [
        *("photos/.hidden.jpg", "photos/notes.txt", "absent.jpg")
    ]


def test_each_file_once_in_the_order_of_the_arguments(tree):
    assert names("photos/b.PNG", "photos", "photos/*.jpg")[0] == "photos/b.PNG"
    assert len(names("photos/b.PNG", "photos", "photos/**/*")) == 4


def test_links_are_followed_but_not_in_circles(tree):
    (tree / "links").mkdir()
    (tree / "links/one.jpg").symlink_to(tree / "photos/a.jpg")
    (tree / "links/round").symlink_to(tree / "links")
    for argument in ("links", "links/**/*.jpg", "links/**"):
        assert names(argument) == ["links/one.jpg"]


def test_folder_and_pattern_without_a_file_are_complained_about(tree):
    (tree / "empty").mkdir()
    meant = meant_by([Path("empty"), Path("photos/*.gif"), Path("photos/a.jpg"), Path("no/**/x")])
    assert [file.as_posix() for file in meant.files] == ["photos/a.jpg"]
    assert [said for _, said in meant.complaints] == [
        *("empty: holds no file.", "photos/*.gif: no file has such a name."),
        "no/**/x: no file has such a name.",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_may_not_be_read_is_complained_about(tree):
    (tree / "photos/deep").chmod(0)
    try:
        meant = meant_by([Path("photos")])
    finally:
        (tree / "photos/deep").chmod(0o755)
    assert "cannot be read" in meant.complaints[0][1]

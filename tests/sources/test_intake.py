from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import SourceError
from pipelines.sources.intake import safe_path
from tests.file_tree import file_tree


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cats/a.jpg", "cats/a.jpg"),
        ("./cats//./a.jpg", "cats/a.jpg"),
        ("cats\\a.jpg", "cats/a.jpg"),
        ("cats/..a.jpg", "cats/..a.jpg"),
        ("katzen/größe\n2.jpg", "katzen/größe\n2.jpg"),
        ("cats/\udcff.jpg", "cats/\udcff.jpg"),
        ("a:b/c.jpg", None),
        ("C:/cats/a.jpg", None),
        ("c:a.jpg", None),
        ("/etc/passwd", None),
        ("\\\\server\\share\\a.jpg", None),
        ("cats/../../a.jpg", None),
        ("cats\\..\\..\\a.jpg", None),
        ("..", None),
        ("cats/a\0.jpg", None),
        ("cats/" + "a" * 252 + ".jpg", None),
        ("/".join(["abcdefg"] * 300), None),
        ("cats/\ud800.jpg", None),
    ],
)
def test_safe_path_table(name, expected):
    if expected is None:
        with pytest.raises(SourceError, match="the file name"):
            safe_path(name, "set.zip")
    else:
        assert str(safe_path(name, "set.zip")) == expected


_PIECES = st.sampled_from(["..", ".", "", "a", "C:", "~", "\\", "/", "//", "..\\", "\0", "a.jpg"])


@given(st.one_of(st.text(), st.lists(_PIECES).map("/".join), st.lists(_PIECES).map("".join)))
def test_safe_path_any_name_stays_inside_or_is_refused(name):
    try:
        path = safe_path(name, "set.zip")
    except SourceError:
        return
    root = Path("/srv/raw")
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert "\0" not in str(path)
    # `resolve` of a path that is not there only folds the dots.
    assert root.joinpath(*path.parts).resolve().is_relative_to(root)
    assert safe_path(str(path), "set.zip") == path


def test_intake_takes_images_and_tables_where_they_speak_for_a_set(intake):
    made = intake()
    wanted = ["a/1.JPG", "records.csv", "metadata.csv", "train/metadata.jsonl", "Val/records.csv"]
    others = ["a/records.csv", "cats/metadata.csv", "readme.txt", "SOURCE.json"]
    hidden = [".git/1.jpg", "a/._1.jpg", "__MACOSX/a/1.jpg"]
    for names, expected in ((wanted, wanted), (others, []), (hidden, [])):
        assert [name for name in names if made.wants(PurePosixPath(name))] == expected
    assert made.skipped == {"hidden": 2, "system": 1, "other": 4}


@pytest.mark.parametrize("second", ["a", "a/b.jpg", "a/b.jpg/c.jpg"])
def test_intake_name_taken_or_folder_of_another_is_an_error(intake, tmp_path, second):
    made = intake()
    made.add(PurePosixPath("a/b.jpg"), [b"1"])
    with pytest.raises(SourceError, match="two entries"):
        made.add(PurePosixPath(second), [b"", b"\xff\xd8", b"\xff 2"])
    assert file_tree(tmp_path / "raw") == {"a/b.jpg": b"1"}


def test_intake_names_that_a_disk_takes_for_one_are_told(intake, tmp_path):
    made = intake()
    made.add(PurePosixPath("a/IMG.jpg"), [b"1"])
    # This disk tells them apart; one that knows no letter case has the other name, too.
    made.add(PurePosixPath("a/Img.jpg"), [b"2"])
    (tmp_path / "raw/a/img.JPG").hardlink_to(tmp_path / "raw/a/IMG.jpg")
    with pytest.raises(SourceError, match=r"'a/IMG.jpg' and 'a/img.JPG' are one name"):
        made.add(PurePosixPath("a/img.JPG"), [b"2"])
    assert made.n_files == 3


def test_intake_bounds_count_over_files(intake):
    made = intake(max_bytes=5, max_files=3)
    made.add(PurePosixPath("a.jpg"), [b"12", b"34"])
    with pytest.raises(SourceError, match="more than 5 bytes"):
        made.add(PurePosixPath("b.jpg"), [b"1", b"2"])
    made.add(PurePosixPath("c.jpg"), [])
    with pytest.raises(SourceError, match="more than 3 files"):
        made.add(PurePosixPath("d.jpg"), [])

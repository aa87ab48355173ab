from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import SourceError
from pipelines.sources.download import check_address, is_address, public_name
from pipelines.sources.intake import Intake, safe_path


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
def test_safe_path_table(name: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(SourceError, match="the file name"):
            safe_path(name, "set.zip")
    else:
        assert str(safe_path(name, "set.zip")) == expected


_PIECES = st.sampled_from(["..", ".", "", "a", "C:", "~", "\\", "/", "//", "..\\", "\0", "a.jpg"])


@given(st.one_of(st.text(), st.lists(_PIECES).map("/".join), st.lists(_PIECES).map("".join)))
def test_safe_path_any_name_stays_inside_or_is_refused(name: str) -> None:
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


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (
            "https://user:secret@example.org:8443/a/set.zip?token=x#y",
            "https://example.org:8443/a/set.zip",
        ),
        ("/home/somebody/set.zip", "set.zip"),
        ("../sets/set.zip", "set.zip"),
        ("/", "folder"),
    ],
)
def test_public_name_keeps_no_secret_and_no_folder(location: str, expected: str) -> None:
    assert public_name(location) == expected


def test_is_address_tells_schemes_from_paths() -> None:
    assert is_address("file:///etc/passwd")
    assert not is_address("C:/sets/set.zip")
    assert not is_address("sets/a.zip")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/a.zip",
        "data:text/plain,hello",
        "http:///a.zip",
        "http://[::1/a.zip",
        "example.org/a.zip",
        "https://user@example.org/a.zip",
        "",
    ],
)
def test_check_address_other_than_plain_web_is_refused(url: str) -> None:
    with pytest.raises(SourceError):
        check_address(url, "list.csv:2")


def test_check_address_refusal_does_not_repeat_the_password() -> None:
    with pytest.raises(SourceError) as caught:
        check_address("https://me:secret@example.org/a.zip", "list.csv:2")
    assert "secret" not in str(caught.value)


def test_intake_takes_images_and_top_records_only(tmp_path: Path) -> None:
    intake = Intake(tmp_path, "fish", max_bytes=100)
    names = ["a/1.JPG", "records.csv", "a/records.csv", "readme.txt", ".git/1.jpg", "a/._1.jpg"]
    names += ["__MACOSX/a/1.jpg", "SOURCE.json"]
    assert [name for name in names if intake.wants(PurePosixPath(name))] == [
        "a/1.JPG",
        "records.csv",
    ]
    assert intake.skipped == {"hidden": 2, "system": 1, "other": 3}


@pytest.mark.parametrize("second", ["a", "a/b.jpg", "a/b.jpg/c.jpg"])
def test_intake_name_taken_or_folder_of_another_is_an_error(tmp_path: Path, second: str) -> None:
    intake = Intake(tmp_path, "fish", max_bytes=100)
    intake.add(PurePosixPath("a/b.jpg"), [b"1"])
    with pytest.raises(SourceError, match="two entries"):
        intake.add(PurePosixPath(second), [b"\xff\xd8\xff 2"])
    assert (tmp_path / "a/b.jpg").read_bytes() == b"1"


def test_intake_names_that_a_disk_takes_for_one_are_told(tmp_path: Path) -> None:
    intake = Intake(tmp_path, "fish", max_bytes=100)
    intake.add(PurePosixPath("a/IMG.jpg"), [b"1"])
    # What a disk does that knows no letter case: the other name is there, too.
    (tmp_path / "a/img.JPG").hardlink_to(tmp_path / "a/IMG.jpg")
    with pytest.raises(SourceError, match=r"'a/IMG.jpg' and 'a/img.JPG' are one name"):
        intake.add(PurePosixPath("a/img.JPG"), [b"2"])


def test_intake_names_that_this_disk_tells_apart_are_both_taken(tmp_path: Path) -> None:
    intake = Intake(tmp_path, "fish", max_bytes=100)
    intake.add(PurePosixPath("a/IMG.jpg"), [b"1"])
    intake.add(PurePosixPath("a/img.jpg"), [b"2"])
    assert intake.n_files == 2


def test_intake_takes_tables_at_the_top_and_in_parts_of_a_set(tmp_path: Path) -> None:
    intake = Intake(tmp_path, "fish", max_bytes=100)
    names = ["metadata.csv", "train/metadata.jsonl", "Val/records.csv", "cats/metadata.csv"]
    assert [name for name in names if intake.wants(PurePosixPath(name))] == names[:3]


def test_intake_bounds_count_over_files(tmp_path: Path) -> None:
    intake = Intake(tmp_path, "fish", max_bytes=5, max_files=3)
    intake.add(PurePosixPath("a.jpg"), [b"12", b"34"])
    with pytest.raises(SourceError, match="more than 5 bytes"):
        intake.add(PurePosixPath("b.jpg"), [b"1", b"2"])
    intake.add(PurePosixPath("c.jpg"), [])
    with pytest.raises(SourceError, match="more than 3 files"):
        intake.add(PurePosixPath("d.jpg"), [])

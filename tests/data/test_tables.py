"""Tables as spreadsheets and other tools write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from pipelines.data.layout import read_folder
from pipelines.errors import DataError

ROWS = [("red/1.jpg", "rot", "p1"), ("grün/2.jpg", "grün", "p2"), ("red/3.jpg", "rot", "p1")]
HEADER = ("path", "label", "group")


def text(delimiter: str = ",", end: str = "\n", quote: str = "", header=HEADER) -> str:
    lines = [header, *ROWS]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines)


def images(folder: Path, *names: str) -> Path:
    for name in names or [path for path, _, _ in ROWS]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\xff\xd8\xff" + name.encode())
    return folder


@pytest.mark.parametrize(
    "data",
    [
        text().encode(),
        codecs.BOM_UTF8 + text(";", "\r\n").encode(),
        codecs.BOM_UTF8 + ("sep=;\r\n" + text(";", "\r\n")).encode(),
        text("\t", "\r\n").encode("utf-16"),
        codecs.BOM_UTF16_BE + text("\t", "\r\n").encode("utf-16-be"),
        text("\t").encode("utf-16-le"),
        text(quote='"').encode(),
        text(end="\r\n").encode(),
        (text() + ",,\n\n").encode(),
        text(header=(" Path", "LABEL ", "Patient_ID")).encode(),
        text(header=("image_id", "class", "subject")).encode(),
        text().replace("/", "\\").encode(),
        text().replace("red/", "/home/me/set/red/").replace("grün/", "/home/me/set/grün/").encode(),
        text().replace("red/", "C:\\set\\red\\").replace("grün/2", "C:\\set\\grün\\2").encode(),
        text().replace("red/", "images/red/").replace("grün/", "images/grün/").encode(),
        text().replace(".jpg", "").encode(),
        text().replace("red/", "").replace("grün/2.jpg", "2.jpg").encode(),
        text().replace("red/", "RED/").encode(),
        text().replace("ü", "u\u0308").encode(),
    ],
)
def test_every_way_to_write_the_same_table_is_read_alike(tmp_path: Path, data: bytes) -> None:
    images(tmp_path)
    (tmp_path / "records.csv").write_bytes(data)
    found = read_folder(tmp_path)
    assert {(image.path, image.name, image.group) for image in found.images} == set(ROWS)
    assert found.has_groups


def test_folder_in_nfd_is_found_by_a_table_in_nfc(tmp_path: Path) -> None:
    images(tmp_path, "gru\u0308n/2.jpg", "red/1.jpg")
    table = "path,label\ngr\u00fcn/2.jpg,gr\u00fcn\nred/1.jpg,red\n"
    (tmp_path / "records.csv").write_text(table, encoding="utf-8")
    found = read_folder(tmp_path)
    assert [image.path for image in found.images] == ["gru\u0308n/2.jpg", "red/1.jpg"]
    assert {image.name for image in found.images} == {"gr\u00fcn", "red"}


@pytest.mark.parametrize("below", ["", "images/"])
def test_hugging_face_tables_are_read_at_the_top_and_in_split_folders(
    tmp_path: Path, below: str
) -> None:
    for split in ("train", "test"):
        images(tmp_path, *(f"{split}/{below}{n}.jpg" for n in (1, 2)))
        rows = "".join(f"{below}{n}.jpg,kind{n}\n" for n in (1, 2))
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{rows}")
    found = read_folder(tmp_path)
    assert {(image.path, image.name, image.split) for image in found.images} == {
        (f"{split}/{below}{n}.jpg", f"kind{n}", split)
        for split in ("train", "test")
        for n in (1, 2)
    }


def test_metadata_jsonl_is_read(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.jpg", "label": 0}\n{"file_name": "b.jpg", "label": 1}\n'
    )
    assert [image.name for image in read_folder(tmp_path).images] == ["0", "1"]


def test_split_column_is_the_given_split(tmp_path: Path) -> None:
    images(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "records.csv").write_text("path,label,split\na.jpg,x,Training\nb.jpg,y,valid\n")
    assert [image.split for image in read_folder(tmp_path).images] == ["train", "val"]


def test_metadata_about_something_else_leaves_the_folders_to_speak(tmp_path: Path) -> None:
    images(tmp_path, "red/1.jpg", "blue/1.jpg")
    (tmp_path / "metadata.csv").write_text("isic_id,age\nISIC_1,40\n")
    found = read_folder(tmp_path)
    assert found.kind == "class_folders"
    assert set(found.by_class) == {"red", "blue"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,label\na.jpg,x|y\n", r":2: 'x\|y' are several labels.*not supported"),
        ("path;label\na.jpg;x,y\nb.jpg;x\nc.jpg;y\n", "'x,y' are several labels"),
        ('path,label\na.jpg,"[""x"", ""y""]"\n', "several labels"),
        ("image,MEL,NV,BCC\na.jpg,0,1,0\nb.jpg,1.0,0.0,0.0\n", "MEL, NV, BCC hold 0 and 1"),
        ("path,label\na.jpg,x\na.jpg,y\n", r"listed more than once \('a.jpg'\)"),
        ("path,label\na.jpg,x\nA.JPG,x\n", "listed more than once"),
        ("path,label\n/etc/passwd,x\n", "must be relative and stay inside"),
        ("path,label\n..\\..\\a.jpg,x\n", "must be relative and stay inside"),
        ("path,label,split\na.jpg,x,holdout\n", "expected train, val or test.*'holdout'"),
    ],
)
def test_table_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, table: str, message: str
) -> None:
    images(tmp_path, "a.jpg")
    (tmp_path / "records.csv").write_text(table)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_path_that_means_two_files_is_refused(tmp_path: Path) -> None:
    images(tmp_path, "x/a.jpg", "y/a.jpg")
    (tmp_path / "records.csv").write_text("path,label\na,one\n")
    with pytest.raises(DataError, match="may be each of 2 files"):
        read_folder(tmp_path)


def test_missing_file_is_never_taken_from_another_class(tmp_path: Path) -> None:
    images(tmp_path, "red/1.jpg", "blue/2.jpg")
    (tmp_path / "records.csv").write_text("path,label\nred/1.jpg,red\nred/2.jpg,red\n")
    assert [image.path for image in read_folder(tmp_path).images] == ["red/1.jpg", "red/2.jpg"]


def test_table_without_labels_says_what_is_understood(tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("file,kind\na,b\n")
    with pytest.raises(NoLabelsError, match=r"without label.*class_name"):
        read_table(tmp_path / "records.csv")

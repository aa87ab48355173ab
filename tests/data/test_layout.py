"""Folders and tables of labelled images as people, spreadsheets and other tools write them."""

from __future__ import annotations

import codecs
from collections import Counter
from pathlib import Path

import pytest

from pipelines.data import tree
from pipelines.data.account import account
from pipelines.data.layout import listed_files, read_folder
from pipelines.errors import DataError
from tests.data.test_manifest import card, touch


def test_names_that_systems_leave_are_never_classes_nor_images(tmp_path: Path) -> None:
    touch(
        *(tmp_path, "cat/1.jpg", "dog/2.jpg", "cat/._1.jpg", "cat/Thumbs.db", "dog/desktop.ini"),
        *("__MACOSX/cat/1.jpg", "@eaDir/x.jpg/SYNO.jpg", "cat/@eaDir/1.jpg/SYNO.jpg"),
        *(".ipynb_checkpoints/1.jpg", ".DS_Store", ".git/objects/1.png", "notes.txt"),
    )
    found = read_folder(tmp_path)
    assert set(found.by_class) == {"cat", "dog"}
    assert len(found.images) == 2
    assert Counter(file.kind for file in found.files) == {
        **{"image": 2, "hidden": 4, "system": 5, "other": 1}
    }


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "Validation", "Testing"), ("TRAIN", "valid", "Test")],
)
def test_split_folders_above_or_below_the_classes(
    tmp_path: Path, train: str, val: str, test: str
) -> None:
    for name, pattern in (("above", "{split}/{label}"), ("below", "{label}/{split}")):
        for split in (train, val, test):
            for label in ("healthy", "rust"):
                touch(tmp_path / name, pattern.format(split=split, label=label) + "/1.jpg")
        found = read_folder(tmp_path / name)
        assert {image.name for image in found.images} == {"healthy", "rust"}
        assert Counter(image.split for image in found.images) == {"train": 2, "val": 2, "test": 2}


def test_class_called_train_is_a_class_beside_others(tmp_path: Path) -> None:
    touch(tmp_path, "bus/1.jpg", "car/1.jpg", "train/1.jpg")
    assert set(read_folder(tmp_path).by_class) == {"bus", "car", "train"}


def test_card_whose_classes_are_called_like_splits_is_believed(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "test/1.jpg")
    classes = [
        entry.model_copy(update={"label": label})
        for entry, label in zip(card().classes, ("train", "val", "test"), strict=True)
    ]
    known = card().model_copy(update={"classes": tuple(classes)})
    assert set(read_folder(tmp_path, known).by_class) == {"train", "test"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.jpg", "test/a/1.jpg", "extra/1.jpg"], "'extra' stands beside them"),
        (["a/train/1.jpg", "a/test/1.jpg", "b/1.jpg"], "and 1 are not .*'b/1.jpg'"),
    ],
)
def test_folders_that_are_half_a_split_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        read_folder(tmp_path)


def test_unlabelled_test_images_are_counted_and_no_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg", "test/2.jpg")
    found = read_folder(tmp_path)
    assert [image.path for image in found.images] == ["train/cat/1.jpg", "train/dog/1.jpg"]
    counted = account(found.files, {image.path: image.name for image in found.images}, {})
    assert counted.passed == {("images without a class", ""): 2}


def test_links_are_followed_and_circles_and_dangling_ones_told(tmp_path: Path) -> None:
    touch(tmp_path / "store", "1.jpg", "2.jpg")
    top = tmp_path / "set"
    touch(top, "dog/3.jpg")
    (top / "cat").symlink_to(tmp_path / "store", target_is_directory=True)
    (top / "dog/4.jpg").symlink_to(tmp_path / "store/1.jpg")
    (top / "dog/again").symlink_to(top, target_is_directory=True)
    (top / "dog/gone.txt").symlink_to(tmp_path / "nothing")
    (top / "dog/itself.txt").symlink_to(top / "dog/itself.txt")
    found = read_folder(top)
    assert {name: len(images) for name, images in found.by_class.items()} == {"cat": 2, "dog": 2}
    assert Counter(file.kind for file in found.files) == {"image": 4, "loop": 1, "dangling": 2}


def test_links_that_multiply_without_a_file_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "_MAX_FILES", 500)
    top = tmp_path / "set"
    for number in range(40):
        (top / str(number)).mkdir(parents=True)
        for name in ("one", "another"):
            (top / str(number) / name).symlink_to(top / str(number + 1), target_is_directory=True)
    # No path holds a folder twice, and there are 2 to the 40.
    (top / "40").mkdir()
    with pytest.raises(DataError, match=r"holds more than 500 folders\. Name the folder"):
        read_folder(top)


def test_files_without_suffix_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    heads = {
        "jpeg": b"\xff\xd8\xff\xe0",
        "png": b"\x89PNG\r\n\x1a\n",
        "1.2.840.113619.2.55": b"\0" * 128 + b"DICM",
        "heic": b"\0\0\0\x18ftypheic",
        "README": b"hello",
        "short": b"",
    }
    (tmp_path / "cat").mkdir()
    for name, head in heads.items():
        (tmp_path / "cat" / name).write_bytes(head)
    found = read_folder(tmp_path)
    assert {Path(image.path).name for image in found.images} == set(heads) - {"README", "short"}


# -- tables ---------------------------------------------------------------------------------------
ROWS = [("red/1.jpg", "rot", "p1"), ("grün/2.jpg", "grün", "p2"), ("red/3.jpg", "rot", "p1")]
HEADER = ("path", "label", "group")


def text(delimiter: str = ",", end: str = "\n", quote: str = "", header=HEADER) -> str:
    lines = [header, *ROWS]
    return "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines)


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
    touch(tmp_path, *(path for path, _, _ in ROWS))
    (tmp_path / "records.csv").write_bytes(data)
    found = read_folder(tmp_path)
    assert {(image.path, image.name, image.group) for image in found.images} == set(ROWS)
    assert found.has_groups


def test_folder_in_nfd_is_found_by_a_table_in_nfc(tmp_path: Path) -> None:
    touch(tmp_path, "gru\u0308n/2.jpg", "red/1.jpg")
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
        touch(tmp_path, *(f"{split}/{below}{n}.jpg" for n in (1, 2)))
        rows = "".join(f"{below}{n}.jpg,kind{n}\n" for n in (1, 2))
        (tmp_path / split / "metadata.csv").write_text(f"file_name,label\n{rows}")
    found = read_folder(tmp_path)
    assert {(image.path, image.name, image.split) for image in found.images} == {
        (f"{split}/{below}{n}.jpg", f"kind{n}", split)
        for split in ("train", "test")
        for n in (1, 2)
    }


def test_metadata_jsonl_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "a.jpg", "label": 0}\n{"file_name": "b.jpg", "label": 1}\n'
    )
    assert [image.name for image in read_folder(tmp_path).images] == ["0", "1"]


def test_split_column_is_the_given_split(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "records.csv").write_text("path,label,split\na.jpg,x,Training\nb.jpg,y,valid\n")
    assert [image.split for image in read_folder(tmp_path).images] == ["train", "val"]


def test_metadata_about_something_else_leaves_the_folders_to_speak(tmp_path: Path) -> None:
    touch(tmp_path, "red/1.jpg", "blue/1.jpg")
    (tmp_path / "metadata.csv").write_text("isic_id,age\nISIC_1,40\n")
    found = read_folder(tmp_path)
    assert found.kind == "class_folders"
    assert set(found.by_class) == {"red", "blue"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "without label, path"),
        ("file,kind\na,b\n", r"without label.*class_name"),
        ("path,label\na.jpg,x|y\n", r":2: 'x\|y' are several labels.*not supported"),
        ("path;label\na.jpg;x,y\nb.jpg;x\nc.jpg;y\n", "'x,y' are several labels"),
        ('path,label\na.jpg,"[""x"", ""y""]"\n', "several labels"),
        ("image,MEL,NV,BCC\na.jpg,0,1,0\nb.jpg,1.0,0.0,0.0\n", "MEL, NV, BCC hold 0 and 1"),
        ("path,label\na.jpg,x\na.jpg,y\n", r"listed more than once \('a.jpg'\)"),
        ("path,label\na.jpg,x\nA.JPG,x\n", "listed more than once"),
        ("path,label\nna\u00efve.png,x\n".encode("latin-1"), "CSV text in UTF-8"),
        ("path,label\n,x\n", "must be relative and stay inside"),
        ("path,label\n/etc/passwd,x\n", "must be relative and stay inside"),
        ("path,label\n..\\..\\a.jpg,x\n", "must be relative and stay inside"),
        ("path,label,split\na.jpg,x,holdout\n", "expected train, val or test.*'holdout'"),
    ],
)
def test_table_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, table: str | bytes, message: str
) -> None:
    touch(tmp_path, "a.jpg")
    data = table.encode() if isinstance(table, str) else table
    (tmp_path / "records.csv").write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_path_that_means_two_files_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/a.jpg")
    (tmp_path / "records.csv").write_text("path,label\na,one\n")
    with pytest.raises(DataError, match="may be each of 2 files"):
        read_folder(tmp_path)


def test_missing_file_is_never_taken_from_another_class(tmp_path: Path) -> None:
    touch(tmp_path, "red/1.jpg", "blue/2.jpg")
    (tmp_path / "records.csv").write_text("path,label\nred/1.jpg,red\nred/2.jpg,red\n")
    assert [image.path for image in read_folder(tmp_path).images] == ["red/1.jpg", "red/2.jpg"]


def test_listed_files_need_no_label(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("b.png", "a.png"):
        (tmp_path / "images" / name).write_bytes(b"not looked at")
    text = "file;group;mask\nimages\\b;g1;m.png\nimages\\a.png;g2;\n"
    (tmp_path / "records.csv").write_text(text, encoding="utf-8-sig")
    found = listed_files(tmp_path)
    assert [(row.path, row.group, row.cells["mask"]) for row in found] == [
        ("images/a.png", "g2", ""),
        ("images/b.png", "g1", "m.png"),
    ]


@pytest.mark.parametrize(("table", "rows"), [("records.csv", None), ("metadata.csv", [])])
def test_listed_files_of_a_table_without_paths(tmp_path, table, rows):
    """Our own table must have them; another may be about something else."""
    (tmp_path / table).write_text("who,when\nme,now\n", encoding="utf-8")
    if rows is None:
        with pytest.raises(DataError, match="expected the columns path"):
            listed_files(tmp_path)
    else:
        assert listed_files(tmp_path) == rows

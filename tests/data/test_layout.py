"""Folders of labelled images as people have them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.account import account
from pipelines.data.layout import read_folder
from pipelines.data.tree import files_of
from pipelines.errors import DataError
from tests.data.test_manifest import card


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


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
    known = card().model_copy(
        update={
            "classes": tuple(
                entry.model_copy(update={"label": label, "source_names": ()})
                for entry, label in zip(card().classes, ("train", "test"), strict=True)
            )
        }
    )
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
    top = touch(tmp_path / "set", "dog/3.jpg")
    (top / "cat").symlink_to(tmp_path / "store", target_is_directory=True)
    (top / "dog/4.jpg").symlink_to(tmp_path / "store/1.jpg")
    (top / "dog/again").symlink_to(top, target_is_directory=True)
    (top / "dog/gone.txt").symlink_to(tmp_path / "nothing")
    (top / "dog/itself.txt").symlink_to(top / "dog/itself.txt")
    found = read_folder(top)
    assert {name: len(images) for name, images in found.by_class.items()} == {"cat": 2, "dog": 2}
    assert Counter(file.kind for file in found.files) == {"image": 4, "loop": 1, "dangling": 2}


def test_files_without_suffix_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    heads = {
        "jpeg": b"\xff\xd8\xff\xe0",
        "png": b"\x89PNG\r\n\x1a\n",
        "1.2.840.113619.2.55": b"\0" * 128 + b"DICM",
        "heic": b"\0\0\0\x18ftypheic",
        "README": b"hello",
        "short": b"",
    }
    for name, head in heads.items():
        touch(tmp_path, f"cat/{name}")
        (tmp_path / "cat" / name).write_bytes(head)
    found = read_folder(tmp_path)
    assert {Path(image.path).name for image in found.images} == set(heads) - {"README", "short"}


_NAMES = st.sampled_from(
    ["a.jpg", "b.PNG", "c", "n.txt", ".h.jpg", "._a.jpg", "Thumbs.db", "metadata.csv", "x.heic"]
)
_FOLDERS = st.sampled_from(["cat", "dog", "train", "__MACOSX", "@eaDir", ".git", "été"])


@given(st.sets(st.tuples(st.lists(_FOLDERS, max_size=3).map(tuple), _NAMES), max_size=20))
def test_counts_add_up_to_the_files_on_any_tree(
    tmp_path_factory: pytest.TempPathFactory, tree: set[tuple[tuple[str, ...], str]]
) -> None:
    folder = tmp_path_factory.mktemp("tree")
    touch(folder, *("/".join((*folders, name)) for folders, name in tree))
    files = files_of(folder)
    read = {str(file.path): "cat" for file in files if file.kind == "image"}
    refused = {path: ("cat", "too small (1 px)") for path in list(read)[::2]}
    kept = {path: name for path, name in read.items() if path not in refused}
    counted = account(files, kept, {**refused, "gone.jpg": ("dog", "not there")})
    n_on_disk = sum(path.is_file() for path in folder.rglob("*"))
    assert counted.n_files == n_on_disk == len(tree)
    assert counted.missing == {"dog": 1}
    total = counted.as_text("class").splitlines()[-1].split()
    assert total[1] == (f"{n_on_disk:,}" if n_on_disk else "-")

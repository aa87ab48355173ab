"""Every file is counted once; and what stops `prepare`: too much lost, of all or of a class."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.data.account import CONFLICT, COPY, Account, account, check_all, check_classes
from pipelines.data.tree import File, files_of, missing_extra
from pipelines.errors import DataError
from tests.data.test_manifest import touch

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


NAMES = {"blight": "枯病", "rust": "rust"}


def counted(**refused: list[str]) -> Account:
    """Ten rust images, and of blight those that are refused for the given reasons beside four."""
    read = {f"rust/{n}": "rust" for n in range(10)} | {f"blight/{n}": "blight" for n in range(4)}
    left_out = {
        f"{label}/x{n}": (label, reason)
        for label, reasons in refused.items()
        for n, reason in enumerate(reasons)
    }
    files = [File(PurePosixPath(path), "image") for path in (*read, *left_out)]
    return account(files, read, left_out, NAMES)


def check(found: Account, max_loss: float = 0.5) -> None:
    check_classes(found, max_loss, NAMES, "raw", "leaf")


def test_bound_is_the_share_of_a_class() -> None:
    check(counted(blight=["too small"] * 4))
    with pytest.raises(DataError, match=r"^raw: Of class blight \(枯病\) 4 of 9 files are left: 5"):
        check(counted(blight=["too small"] * 5))


def test_copies_of_kept_images_are_no_loss_and_conflicting_ones_are() -> None:
    check(counted(blight=[COPY] * 40))
    with pytest.raises(DataError, match="40 copies under two labels"):
        check(counted(blight=[CONFLICT] * 40))


def test_missing_decoder_is_named_with_what_to_install() -> None:
    found = counted(blight=[missing_extra("HEIC")] * 8)
    line = "8 files of blight (枯病) are HEIC; pip install 'fieldlens[heic]'"
    with pytest.raises(DataError) as caught:
        check(found)
    assert line in str(caught.value)
    with pytest.raises(DataError, match="8 files of blight are HEIC; pip install"):
        check_all(found, {}, 0.1, "raw", "leaf")
    assert "8 HEIC; pip install 'fieldlens[heic]'" in found.as_text("class")


def test_share_of_all_files_is_bounded_too() -> None:
    found = counted(rust=["too small (8 px)", "too small (9 px)"])
    check_all(found, {"rust/x0": "too small (8 px)"}, 0.2, "raw", "leaf")
    with pytest.raises(DataError, match=r"2 of 16 images cannot be used \(2 of rust: too small;"):
        check_all(found, {"rust/x0": "too small (8 px)"}, 0.1, "raw", "leaf")

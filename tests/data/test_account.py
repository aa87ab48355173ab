"""What stops `prepare`: too much lost, of all or of one class."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from pipelines.data.account import CONFLICT, COPY, Account, account, check_all, check_classes
from pipelines.data.tree import File, missing_extra
from pipelines.errors import DataError

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

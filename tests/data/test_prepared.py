from __future__ import annotations

import json

import pytest

from pipelines.data.manifest import Prepared, read_summary
from pipelines.errors import DataError, MissingDataError


def test_summary_gives_labels_in_order_and_the_source(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"labels": ["b", "a"], "data_source": "folder", "more": 1}))
    assert read_summary(path) == Prepared(("b", "a"), "folder")


def test_absent_summary_names_the_command(tmp_path):
    path = tmp_path / "datasets" / "weld" / "prepared" / "summary.json"
    with pytest.raises(MissingDataError, match="Run `fieldlens prepare weld` first"):
        read_summary(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"labels": ["a", "b"]}',
        b'{"data_source": "sample"}',
        b'{"labels": null, "data_source": "sample"}',
        b"\xff\xfe",
    ],
)
def test_damaged_summary_is_one_clear_error(data, tmp_path):
    path = tmp_path / "summary.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"summary\.json: is damaged .* Run `fieldlens prepare`"):
        read_summary(path)

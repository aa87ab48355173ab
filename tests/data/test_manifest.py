"""Reading raw folders; manifest.csv there and back; and the summary beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipelines.atomic import write_text
from pipelines.card import DatasetCard
from pipelines.data.manifest import (
    Entry,
    Prepared,
    Record,
    class_index_of,
    content_sha256,
    in_split,
    read_manifest,
    read_raw,
    read_summary,
    write_manifest,
)
from pipelines.errors import DataError, MissingDataError
from tests.toy_card import CARD


def card(group_pattern: str | None = None) -> DatasetCard:
    document = YAML(typ="safe").load(CARD.format(title="Tiny", task="tiny"))
    return DatasetCard.model_validate(document | {"group_pattern": group_pattern})


def touch(raw_dir: Path, *names: str) -> None:
    for name in names:
        (raw_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (raw_dir / name).write_bytes(b"x")


def entry(path: str, split: str = "train", label: str = "red", sha256: str = "00") -> Entry:
    return Entry(path, label, path, "", split, sha256, 3, 2)  # type: ignore[arg-type]


def test_folders_are_read_by_class_name_whatever_its_case(tmp_path: Path) -> None:
    touch(tmp_path, "rot/1.JPG", "GREEN/deep/2.png", "green.txt", "GREEN/notes.txt")
    assert read_raw(tmp_path, card()) == [
        Record("GREEN/deep/2.png", "green", "GREEN/deep/2.png"),
        Record("rot/1.JPG", "red", "rot/1.JPG"),
    ]


def test_group_comes_from_the_pattern_where_it_matches(tmp_path: Path) -> None:
    touch(tmp_path, "red/p7_a.png", "red/p7_b.png", "red/odd.png")
    groups = [record.group for record in read_raw(tmp_path, card(r"(?P<group>p\d+)_"))]
    assert groups == ["red/odd.png", "p7", "p7"]


def test_table_is_believed_before_folders(tmp_path: Path) -> None:
    touch(tmp_path, "green/1.png")
    table = "path,label,group,source\ngreen/1.png,Rot,g1,clinic\n"
    (tmp_path / "records.csv").write_text(table, encoding="utf-8")
    assert read_raw(tmp_path, card()) == [Record("green/1.png", "red", "g1", "clinic")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("a.png,bird\n", "records.csv:2: no class of the card is called 'bird'"),
        # Without a label a row counts for nothing.
        ("a.png\n", "no image was found"),
        ("", "no image was found"),
    ],
)
def test_table_without_a_known_class_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "records.csv").write_text(f"path,label\n{table}")
    with pytest.raises(DataError, match=message) as caught:
        read_raw(tmp_path, card())
    assert "\n" not in str(caught.value)


def test_unknown_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "bird/1.png")
    with pytest.raises(DataError, match=r"'bird'.*red, green, blue"):
        read_raw(tmp_path, card())


def test_no_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="fieldlens fetch tiny"):
        read_raw(tmp_path / "raw", card())


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=12)


@given(st.lists(NAMES, unique=True, max_size=6))
@example([b"caf\xe9\r\n.png".decode("utf-8", errors="surrogateescape")])
def test_manifest_survives_any_name(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    entries = sorted((entry(name) for name in names), key=lambda each: each.path)
    path = tmp_path_factory.mktemp("m") / "manifest.csv"
    try:
        write_text(path, write_manifest(entries))
    except UnicodeEncodeError:
        # A lone surrogate that no file system gives.
        return
    assert read_manifest(path) == entries


def test_manifest_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("path,label\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected the columns path, label, group"):
        read_manifest(path)


def test_content_hash_follows_content_label_and_split_but_not_order() -> None:
    one, two = entry("a", sha256="aa"), entry("b", sha256="bb")
    same = content_sha256([one, two])
    assert content_sha256([two, one]) == same
    others = [
        [one, entry("b", sha256="cc")],
        [one, entry("b", sha256="bb", label="green")],
        [one, entry("b", sha256="bb", split="val")],
        [one],
    ]
    assert same not in {content_sha256(other) for other in others}


def test_in_split_keeps_the_order() -> None:
    entries = [entry("b", "val"), entry("a", "train"), entry("c", "val")]
    assert [each.path for each in in_split(entries, "val")] == ["b", "c"]


def test_class_index_counts_in_the_order_of_the_logits() -> None:
    entries = [entry("b", label="green"), entry("a", label="red"), entry("c", label="green")]
    assert class_index_of(entries, ["red", "green"]).tolist() == [1, 0, 1]
    assert class_index_of(entries, ["green", "red"]).tolist() == [0, 1, 0]
    assert class_index_of([], ["red"]).shape == (0,)


# -- summary --------------------------------------------------------------------------------------
def test_summary_gives_labels_in_order_and_the_source(tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"labels": ["b", "a"], "data_source": "folder", "more": 1}))
    assert read_summary(path) == Prepared(("b", "a"), "folder")


@pytest.mark.parametrize("read", [read_manifest, read_summary])
def test_what_is_absent_names_the_command(read, tmp_path):
    with pytest.raises(MissingDataError, match="Run `fieldlens prepare weld` first"):
        read(tmp_path / "datasets/weld/prepared/a.file")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"labels": ["a", "b"]}'),
        *(b'{"data_source": "sample"}', b'{"labels": null, "data_source": "sample"}'),
    ],
)
def test_damaged_summary_is_one_clear_error(data, tmp_path):
    path = tmp_path / "summary.json"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"summary\.json: is damaged .* Run `fieldlens prepare`"):
        read_summary(path)

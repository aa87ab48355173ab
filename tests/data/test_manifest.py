"""Reading raw folders, and manifest.csv there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.atomic import write_text
from pipelines.card import DatasetCard
from pipelines.data.manifest import (
    Entry,
    Record,
    class_index_of,
    content_sha256,
    in_split,
    read_manifest,
    read_raw,
    write_manifest,
)
from pipelines.errors import DataError, MissingDataError


def card(group_pattern: str | None = None) -> DatasetCard:
    return DatasetCard.model_validate(
        {
            "title": "t",
            "task": "tiny",
            "domain": "reference",
            "source": {"publisher": "p", "url": "u", "version": "1", "retrieved": "2026-01-01"},
            "licence": {"spdx": "CC0-1.0", "url": "u", "redistribution": "yes"},
            "citation": {"text": "t"},
            "classes": [
                {"label": "cat", "meaning": "m", "source_names": ["Felis Catus"]},
                {"label": "dog", "meaning": "m"},
            ],
            "unit_of_observation": "o",
            "group_key": "animal",
            "group_pattern": group_pattern,
            "image": {"modality": "m", "channels": 3, "bit_depth": 8},
            "splits": "made",
            "known_biases": ["b"],
            "consent_and_privacy": "c",
            "intended_use": "i",
            "not_for": ["n"],
        }
    )


def touch(raw_dir: Path, *names: str) -> None:
    for name in names:
        (raw_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (raw_dir / name).write_bytes(b"x")


def entry(path: str, split: str = "train", label: str = "cat", sha256: str = "00") -> Entry:
    return Entry(path, label, path, "", split, sha256, 3, 2)  # type: ignore[arg-type]


def test_folders_are_read_by_class_name_whatever_its_case(tmp_path: Path) -> None:
    touch(tmp_path, "felis catus/1.JPG", "DOG/deep/2.png", "dog.txt", "DOG/notes.txt")
    assert read_raw(tmp_path, card()) == [
        Record("DOG/deep/2.png", "dog", "DOG/deep/2.png"),
        Record("felis catus/1.JPG", "cat", "felis catus/1.JPG"),
    ]


def test_hidden_names_are_not_looked_at(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/._1.png", ".git/objects/1.png", "cat/.thumbs/1.png")
    assert [record.path for record in read_raw(tmp_path, card())] == ["cat/1.png"]


def test_group_comes_from_the_pattern_where_it_matches(tmp_path: Path) -> None:
    touch(tmp_path, "cat/p7_a.png", "cat/p7_b.png", "cat/odd.png")
    groups = [record.group for record in read_raw(tmp_path, card(r"(?P<group>p\d+)_"))]
    assert groups == ["cat/odd.png", "p7", "p7"]


def test_symlinked_folders_inside_a_class_are_not_walked_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png")
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert [record.path for record in read_raw(tmp_path, card())] == ["cat/1.png"]


def test_table_is_believed_before_folders(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.png")
    # As a spreadsheet saves it: with a byte order mark and carriage returns.
    text = "\ufeffpath,label,group,source\r\ndog/1.png,Felis Catus,g1,clinic\r\n"
    (tmp_path / "records.csv").write_text(text, encoding="utf-8", newline="")
    assert read_raw(tmp_path, card()) == [Record("dog/1.png", "cat", "g1", "clinic")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"path,kind\na.png,cat\n", "without label"),
        (b"path,label\na.png,bird\n", "records.csv:2: no class of the card is called 'bird'"),
        (b"path,label\n../../etc/passwd,cat\n", "stay inside raw/"),
        (b"path,label\n/etc/passwd,cat\n", "stay inside raw/"),
        (b"path,label\n,cat\n", "stay inside raw/"),
        (b"path,label\na.png\n", "no image was found"),
        ("path,label\nnaïve.png,cat\n".encode("latin-1"), "CSV text in UTF-8"),
        (b"path,label\n", "no image was found"),
        (b"", "without label, path"),
    ],
)
def test_bad_table_is_refused(tmp_path: Path, table: bytes, message: str) -> None:
    (tmp_path / "records.csv").write_bytes(table)
    with pytest.raises(DataError, match=message) as caught:
        read_raw(tmp_path, card())
    assert "\n" not in str(caught.value)


def test_unknown_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "bird/1.png")
    with pytest.raises(DataError, match=r"'bird'.*cat, dog"):
        read_raw(tmp_path, card())


def test_no_folder_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="fieldlens fetch tiny"):
        read_raw(tmp_path / "raw", card())


NAMES = st.text(st.characters(exclude_characters="\0/"), min_size=1, max_size=12)


@given(st.lists(NAMES, unique=True, max_size=6))
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


def test_manifest_survives_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = b"caf\xe9\r\n.png".decode("utf-8", errors="surrogateescape")
    path = tmp_path / "manifest.csv"
    write_text(path, write_manifest([entry(name)]))
    assert read_manifest(path) == [entry(name)]


def test_manifest_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("path,label\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected the columns path, label, group"):
        read_manifest(path)


def test_absent_manifest_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="fieldlens prepare tiny"):
        read_manifest(tmp_path / "tiny" / "prepared" / "manifest.csv")


def test_content_hash_follows_content_label_and_split_but_not_order() -> None:
    one, two = entry("a", sha256="aa"), entry("b", sha256="bb")
    same = content_sha256([one, two])
    assert content_sha256([two, one]) == same
    others = [
        [one, entry("b", sha256="cc")],
        [one, entry("b", sha256="bb", label="dog")],
        [one, entry("b", sha256="bb", split="val")],
        [one],
    ]
    assert same not in {content_sha256(other) for other in others}


def test_in_split_keeps_the_order() -> None:
    entries = [entry("b", "val"), entry("a", "train"), entry("c", "val")]
    assert [each.path for each in in_split(entries, "val")] == ["b", "c"]


def test_class_index_counts_in_the_order_of_the_logits() -> None:
    entries = [entry("b", label="dog"), entry("a", label="cat"), entry("c", label="dog")]
    assert class_index_of(entries, ["cat", "dog"]).tolist() == [1, 0, 1]
    assert class_index_of(entries, ["dog", "cat"]).tolist() == [0, 1, 0]
    assert class_index_of([], ["cat"]).shape == (0,)

"""The lines of a search: what is kept, what a torn one costs, and what no score may be."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from pipelines.search.records import Records, Score, read_records
from tests.toy_search import SPACE, evaluate

NETWORKS = [SPACE.smallest, SPACE.largest, SPACE.base_at(128)]


def written(file) -> Records:
    records = Records(file, ["weights", 1])
    for network in NETWORKS:
        records.add(network, evaluate(network), None, 1.23456)
    return records


def test_what_was_added_is_there_for_the_next_process_and_for_nothing_made_otherwise(tmp_path):
    file = tmp_path / "below/records.jsonl"
    records = written(file)
    again = Records(file, ["weights", 1])
    assert [again.get(each) for each in NETWORKS] == [records.get(each) for each in NETWORKS]
    assert again.get(SPACE.smallest).score == evaluate(SPACE.smallest)
    assert again.get(SPACE.smallest).seconds == 1.235
    assert again.get(SPACE.base_at(224)) is None
    assert Records(file, ["weights", 2]).get(SPACE.smallest) is None


@pytest.mark.parametrize("left", [0, 1, 5, 200])
def test_a_torn_last_line_costs_that_line_and_no_other(left, tmp_path):
    file = tmp_path / "records.jsonl"
    written(file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]) + lines[2][:left])
    records = Records(file, ["weights", 1])
    assert [records.get(each) is not None for each in NETWORKS] == [True, True, False]
    records.add(NETWORKS[2], None, "failed", 0.0)
    assert [each.error for each in read_records(file)] == [None, None, "failed"]


def test_of_two_lines_the_last_counts(tmp_path):
    file = tmp_path / "records.jsonl"
    records = written(file)
    records.add(NETWORKS[0], None, "failed", 0.0)
    assert Records(file, ["weights", 1]).get(NETWORKS[0]).error == "failed"
    assert len(read_records(file)) == 4


def test_lines_are_plain_json_with_every_digit(tmp_path):
    file = tmp_path / "records.jsonl"
    written(file)
    first = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert first["line"] == SPACE.smallest.line
    assert first["score"]["ratio"] == evaluate(SPACE.smallest).ratio


@pytest.mark.parametrize(
    "wrong",
    [
        {"accuracy": 1.1},
        {"accuracy": float("nan")},
        {"ratio": 0.0},
        {"ratio": float("inf")},
        {"ms": -1.0},
        {"extra": 1},
    ],
)
def test_a_score_that_cannot_be_is_none(wrong):
    sound = {"accuracy": 0.5, "ratio": 1.0, "ms": 20.0}
    Score(**sound)
    with pytest.raises(ValidationError):
        Score(**{**sound, **wrong})

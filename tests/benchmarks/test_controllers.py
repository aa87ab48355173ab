"""Surrogates that controllers are set before: what they say is a rule, and a fit finds it again."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import pytest

from pipelines.config.search import RewardParams
from pipelines.errors import MissingDataError
from pipelines.search.records import Records
from pipelines.search.study import run_study
from tests.toy_search import SPACE

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    found = importlib.import_module("controllers")
    yield found
    sys.modules.pop("controllers")


@pytest.fixture
def file(bench, tmp_path) -> Path:
    """What a random search of a made-up rule has recorded."""
    rule = bench.MadeUp(SPACE, 1, luck=0.001)
    records = Records(tmp_path / "records.jsonl", "toy")
    run_study(SPACE, rule, records, "random", 150, reward=RewardParams(), seed=1)
    return tmp_path / "records.jsonl"


def test_a_made_up_rule_is_a_rule(bench):
    one, same, other = (bench.MadeUp(SPACE, seed, luck=0.01) for seed in (1, 1, 2))
    base = SPACE.base_at(224)
    assert one.without_luck(base).accuracy == 0.88
    assert one(base) == same(base) != one.without_luck(base)
    assert one(SPACE.smallest) != other(SPACE.smallest)
    ratios = [one(each).ratio for each in (SPACE.smallest, SPACE.base_at(128), base, SPACE.largest)]
    assert ratios[2] == 1
    assert ratios == sorted(ratios)


def test_a_fit_finds_the_rule_again(bench, file):
    found = bench.recorded(file, SPACE)
    assert len(found) > 140
    fitted = bench.Fitted.to(SPACE, found)
    # Latencies are sums of products, which sums of logarithms only come close to.
    assert fitted.accuracy_r2 > 0.95
    assert fitted.ratio_r2 > 0.8
    rule = bench.MadeUp(SPACE, 1, luck=0.0)
    assert fitted(SPACE.smallest).accuracy == pytest.approx(rule(SPACE.smallest).accuracy, abs=0.01)
    with pytest.raises(MissingDataError, match="expected at least 100"):
        bench.Fitted.to(SPACE, dict(list(found.items())[:50]))
    with pytest.raises(MissingDataError, match="not there"):
        bench.recorded(file.with_name("absent.jsonl"), SPACE)


def test_studies_that_were_run_are_replayed_and_others_are_not_told_of(bench, file, capsys):
    found = bench.recorded(file, SPACE)
    asked = argparse.Namespace(controllers=["random", "tpe"], seeds=[1, 2], candidates=150)
    bench.replayed(SPACE, RewardParams(), found, asked)
    rows = capsys.readouterr().out.strip().splitlines()[2:]
    assert [row.split(" | ")[:3] for row in rows] == [["| random", "1", "150"]]


def test_controllers_are_compared_at_equal_budget(bench, capsys, tmp_path):
    figure = tmp_path / "rewards.png"
    asked = argparse.Namespace(
        controllers=["reinforce", "random"], seeds=[1, 2], candidates=6, figure=figure
    )
    bench._compare(SPACE, RewardParams(), [bench.MadeUp(SPACE, 1, 0.01)], asked)
    rows = [row.split(" | ") for row in capsys.readouterr().out.strip().splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["| reinforce", "2"],
        ["| random", "2"],
        ["| best baseline", ""],
    ]
    assert figure.read_bytes().startswith(b"\x89PNG")

"""Candidates of a search as trials; without Ray a stand-in asks them one after another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import optuna
import pytest

from pipelines.config.search import RewardParams
from pipelines.errors import ConfigError, in_one_line
from pipelines.scale import searches
from pipelines.scale.sweeps import Sampled, Trial
from pipelines.search.records import Records
from pipelines.search.study import baselines_of
from tests.processes import CLI, ROOT, ran
from tests.scale import toy_search
from tests.scale.test_sweeps import needs_ray
from tests.tiny_search import make_search

CLUSTER = SimpleNamespace(ray=None, n_workers=1)


@pytest.fixture
def asked(monkeypatch) -> list[dict[str, object]]:
    """What trials were asked, in this process."""
    questions: list[dict[str, object]] = []

    def trial(function, question) -> Trial:
        questions.append(dict(question))
        try:
            return Trial(question, answer=function(dict(question)))
        except ValueError as err:
            return Trial(question, error=in_one_line(err))

    def sweep(function, asks, _cluster, *, done) -> None:
        if not isinstance(asks, Sampled):
            for question in asks:
                done(trial(function, question))
            return
        study = optuna.create_study(direction="maximize", sampler=asks.sampler)
        for question, value in asks.known:
            study.enqueue_trial(question)
            study.tell(study.ask(dict(asks.space)), value)
        for _ in range(asks.n_questions):
            proposed = study.ask(dict(asks.space))
            found = trial(function, proposed.params)
            done(found)
            study.tell(proposed, found.answer[asks.metric])

    monkeypatch.setattr(searches, "sweep", sweep)
    monkeypatch.setattr(searches, "_OPENED", {})
    return questions


def study(folder, n: int, controller="reinforce", **more):
    records = Records(folder / "candidates.jsonl", "toy")
    told = []
    found = searches._study(
        CLUSTER,
        toy_search.SPACE,
        toy_search.evaluate,
        records,
        controller,
        n,
        reward=RewardParams(),
        seed=1,
        retry=more.get("retry", False),
        told=told.append,
    )
    assert told == found
    return found


def test_asks_as_many_as_are_missing(asked, tmp_path):
    n_baselines = len(set(baselines_of(toy_search.SPACE).values()))
    first = study(tmp_path, 5)
    assert len(asked) == len(first) == n_baselines + 5
    again = study(tmp_path, 9)
    assert len(asked) == n_baselines + 9
    assert [each.network for each in again[: len(first)]] == [each.network for each in first]
    assert study(tmp_path, 9) == again
    assert len(asked) == n_baselines + 9
    by_name = Counter(each.baseline for each in again)
    assert by_name.pop("") == 9
    assert set(by_name.values()) == {1}


def test_failed_network_is_a_record_and_asked_again_when_that_is_wished(asked, tmp_path):
    found = {each.baseline: each for each in study(tmp_path, 1)}
    assert found["smallest"].record.error == "ValueError: the smallest has failed"
    n_asked = len(asked)
    study(tmp_path, 1)
    assert len(asked) == n_asked
    study(tmp_path, 1, retry=True)
    assert len(asked) == n_asked + 1


def test_two_objectives_are_no_metric(asked, tmp_path):
    with pytest.raises(ConfigError, match="nsga2 wants accuracy and latency apart"):
        study(tmp_path, 1, controller="nsga2")


@needs_ray
def test_search_on_ray(tmp_path):
    for n, expected in ((3, 3), (5, 5)):
        command = [sys.executable, "-m", "tests.scale.toy_search", str(tmp_path), str(n)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
        )
        n_baselines, n_proposed, errors = json.loads(done.stdout.splitlines()[-1])
        assert n_baselines == len(set(baselines_of(toy_search.SPACE).values()))
        assert n_proposed == expected
        assert errors == ["ValueError: the smallest has failed"]


@pytest.mark.timeout(900)
@needs_ray
def test_whole_search_on_ray(tiny_project, tmp_path):
    """From the supernet, made here, to finalists trained there."""
    known = {"backbones": {"mobilenet_v2": [1.0]}, "image_px": [32]}
    reference = {"backbone": "mobilenet_v2", "image_px": 64}
    project = make_search(tiny_project, tmp_path, **known, reference=reference)
    # Another's work on this machine is no fault of the search.
    document = json.loads(project.params.read_text())
    document["tasks"]["tiny"]["search"]["table_gap"] = 100.0
    project.params.write_text(json.dumps(document))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "FIELDLENS_TRACKING": "off"}
    asked = [*CLI, "search", "tiny", "--root", project.root, "--engine", "ray", "--workers", "1"]
    done = ran(*asked, environ=environ, timeout_s=800)
    assert "BEST CANDIDATES" in done.stdout
    assert "FINALISTS" in done.stdout
    cells = project.task("tiny").board_dir / "cells"
    assert len(list(cells.glob("mobilenet_v2-*"))) == 2

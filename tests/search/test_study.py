"""A study: what it asks, what it keeps, and that nothing ends it, or that it goes on after all."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from typing import get_args

import pytest

from pipelines.config.search import Controller, RewardParams, SpaceParams
from pipelines.errors import DataError, StorageError
from pipelines.search.records import Records, Score, read_records
from pipelines.search.space import Space
from pipelines.search.study import baselines_of, run_study
from tests.processes import ROOT
from tests.toy_search import SPACE, EndsAfter, evaluate, run

CONTROLLERS = get_args(Controller)
BASELINES = ["mobilenet_v2, 128 px", "mobilenet_v2, 224 px", "smallest", "largest"]


def asked(candidates) -> list[tuple[str, int]]:
    return [(each.network.line, each.network.image_px) for each in candidates]


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_baselines_come_first_and_a_seed_gives_the_same_candidates(controller, tmp_path):
    first = run(tmp_path / "a", controller, 16)
    assert [each.baseline for each in first] == BASELINES + [""] * 16
    assert [each.network for each in first[:4]] == list(baselines_of(SPACE).values())
    assert asked(run(tmp_path / "b", controller, 16)) == asked(first)
    assert asked(run(tmp_path / "c", controller, 16, seed=2))[4:] != asked(first)[4:]


def results(candidates) -> list[tuple]:
    return [(each.network, each.score, each.reward, each.baseline) for each in candidates]


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_a_study_that_was_ended_goes_on_as_if_it_had_not_been(controller, tmp_path):
    whole = run(tmp_path / "whole", controller, 25)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "ended", controller, 25, EndsAfter(17, interrupted))
    assert results(run(tmp_path / "ended", controller, 25)) == results(whole)


def test_a_study_that_was_killed_while_it_wrote_asks_what_was_not_written_again(tmp_path):
    whole = run(tmp_path / "whole", "reinforce", 25)
    killed = subprocess.run(
        [sys.executable, "-m", "tests.toy_search", tmp_path / "killed", "reinforce", "25", "17"],
        cwd=ROOT,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    file = tmp_path / "killed/records.jsonl"
    assert len(read_records(file)) == 17
    torn = file.read_bytes()[:-30]
    file.write_bytes(torn)
    again = []

    def heard(network) -> Score:
        again.append(network)
        return evaluate(network)

    assert results(run(tmp_path / "killed", "reinforce", 25, heard)) == results(whole)
    assert len(again) == len({each.network for each in whole}) - 16
    assert file.read_bytes().startswith(torn + b"\n")


def test_nothing_is_asked_twice_in_any_study_of_the_same_making(tmp_path):
    first = run(tmp_path, "random", 12)

    def never(network) -> Score:
        raise AssertionError(network)

    assert asked(run(tmp_path, "random", 12, never)) == asked(first)
    twice = run(tmp_path, "random", 12, never, baselines={"a": SPACE.smallest, "b": SPACE.smallest})
    assert [each.score for each in twice[:2]] == [evaluate(SPACE.smallest)] * 2
    other = Records(tmp_path / "records.jsonl", "made of something else")
    assert other.get(SPACE.smallest) is None


def test_a_candidate_that_fails_is_a_record_and_no_controller_hears_of_it(tmp_path):
    faults = [DataError("the val split is empty."), ValueError("two\nlines"), None]

    def fails(network) -> Score:
        if len(read_records(tmp_path / "records.jsonl")) < 3 and (fault := faults.pop(0)):
            raise fault
        if network == SPACE.largest:
            return evaluate(network).model_copy(update={"refusal": "two passes differ by 40%"})
        return evaluate(network)

    heard = []
    found = run(tmp_path, "tpe", 3, fails, told=heard.append)
    assert heard == found
    assert [each.record.error for each in found[:2]] == [
        "the val split is empty.",
        "ValueError: two lines",
    ]
    assert [each.reward is None for each in found] == [True, True, False, True] + [False] * 3
    # Only where it is wanted, and then once.
    assert run(tmp_path, "tpe", 3) == found
    assert all(each.reward for each in run(tmp_path, "tpe", 3, retry=True))


def test_a_disk_that_is_full_ends_the_study(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(StorageError, match=r"records\.jsonl: cannot be written \(No space"):
            run(tmp_path, "random", 1)
    assert len(run(tmp_path, "random", 1)) == 5


def test_a_base_that_its_space_does_not_hold_is_a_baseline_all_the_same(tmp_path):
    narrow = Space.of(SpaceParams(widths=(0.5,), image_px=(128,)))
    records = Records(tmp_path / "records.jsonl", "toy")
    found = run_study(narrow, evaluate, records, "reinforce", 2, reward=RewardParams(), seed=1)
    assert found[0].network == narrow.base_at(128)
    assert [each.baseline for each in found] == [*baselines_of(narrow), "", ""]

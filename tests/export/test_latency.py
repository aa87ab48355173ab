from __future__ import annotations

import time

import pytest

from pipelines.export.latency import Latency, against_reference, is_as_fast, paired_ms, speedup


@pytest.mark.parametrize(("n_in_a_row", "turns"), [(1, "ababababab"), (2, "aabbaabbab")])
def test_calls_take_turns(n_in_a_row, turns):
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    times = paired_ms(calls, n_runs=5, n_in_a_row=n_in_a_row)
    assert "".join(order[-10:]) == turns
    # Each warmed up before anything was counted.
    assert order[:-10].count("a") == order[:-10].count("b") >= 1
    assert {name: len(each) for name, each in times.items()} == {"a": 5, "b": 5}


def test_times_are_milliseconds():
    times = paired_ms({"nap": lambda: time.sleep(0.003)}, n_runs=3)
    assert all(3 <= each < 500 for each in times["nap"])


@pytest.mark.parametrize(
    ("slow", "fast", "expected"),
    [
        ([2, 2, 2], [1, 1, 1], 2.0),
        # one moment of a busy machine changes nothing
        ([2, 2, 200], [1, 1, 1], 2.0),
        # nor does a machine that is slow for both
        ([2, 20, 2], [1, 10, 1], 2.0),
        ([1, 1], [2, 2], 0.5),
    ],
)
def test_speedup_is_the_median_of_pairs(slow, fast, expected):
    assert speedup(slow, fast) == expected


# -- against a reference --------------------------------------------------------------------------
N_RUNS = 10
#: Runs of one call before a pass counts.
N_WARM_UP = 5


class Machine:
    """A clock that moves by what each run is said to take, by name and pass."""

    def __init__(self, **ms: list[float]) -> None:
        self.seconds, self._ms, self._runs = 0.0, ms, dict.fromkeys(ms, 0)

    def call(self, name: str):
        def run() -> None:
            n_pass = self._runs[name] // (N_RUNS + N_WARM_UP)
            self._runs[name] += 1
            of_pass = self._ms[name]
            self.seconds += of_pass[min(n_pass, len(of_pass) - 1)] / 1000

        return run

    def measure(self) -> dict[str, Latency]:
        names = [name for name in self._ms if name != "reference"]
        calls = {name: self.call(name) for name in names}
        return against_reference(calls, self.call("reference"), N_RUNS, lambda: self.seconds)


@pytest.mark.parametrize(
    ("ms", "reference", "ratio", "n_passes", "is_steady"),
    [
        ([2], [1], 2, 2, True),
        # The machine as a whole may be slower in one pass.
        ([2, 10], [1, 5], 2, 2, True),
        # Noise of one pass is not believed: two that agree come later.
        ([1, 2], [1], 2, 3, True),
        ([2.0, 2.19], [1], 2.095, 2, True),
        ([2.0, 2.21, 2.0, 2.21, 2.0, 2.21], [1], 2.105, 6, False),
        ([1, 2, 3, 4, 5, 6], [1], 5.5, 6, False),
    ],
)
def test_ratio_is_of_two_passes_that_agree(ms, reference, ratio, n_passes, is_steady):
    found = Machine(a=ms, reference=reference).measure()["a"]
    assert found.ratio == pytest.approx(ratio)
    assert (found.n_passes, found.is_steady) == (n_passes, is_steady)
    assert (found.gap <= 0.10) == is_steady


def test_call_that_is_steady_first_keeps_its_passes():
    found = Machine(a=[2], b=[1, 2, 4], reference=[1]).measure()
    assert (found["a"].n_passes, found["b"].n_passes) == (2, 4)
    assert (found["a"].ratio, found["b"].ratio) == (pytest.approx(2), pytest.approx(4))


def test_a_few_slow_runs_in_each_pass_change_nothing():
    machine = Machine(a=[2], reference=[1])
    runs = 0
    plain = machine.call("a")

    def disturbed() -> None:
        nonlocal runs
        runs += 1
        plain()
        # Most of them: a 20th percentile bears it, a median would not.
        machine.seconds += 0.05 if runs % 10 > 3 else 0

    found = against_reference(
        {"a": disturbed}, machine.call("reference"), N_RUNS, lambda: machine.seconds
    )["a"]
    assert found.ratio == pytest.approx(2)
    assert found.ms == pytest.approx(2)
    assert found.reference_ms == pytest.approx(1)


def test_waiting_for_a_turn_does_not_count():
    def work() -> None:
        end = time.thread_time() + 0.001
        while time.thread_time() < end:
            pass

    def preempted() -> None:
        work()
        time.sleep(0.005)

    found = against_reference({"a": preempted}, work, N_RUNS)["a"]
    assert found.ratio < 2, "of wall times it is six"


@pytest.mark.parametrize(
    ("ms", "least", "expected"),
    [(0.99, 1.0, True), (1.01, 1.0, False), (0.49, 2.0, True), (0.51, 2.0, False)],
)
def test_as_fast_as_a_reference(ms, least, expected):
    machine = Machine(a=[ms], reference=[1])
    calls = machine.call("a"), machine.call("reference")
    assert is_as_fast(*calls, least, lambda: machine.seconds) == expected

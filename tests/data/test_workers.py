"""A few threads, in order: as many as the environment says, else one a core."""

from __future__ import annotations

import os
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.workers import n_workers, ordered_map
from pipelines.errors import ConfigError, CorruptImageError


@pytest.mark.parametrize(("value", "expected"), [("3", 3), ("", os.cpu_count())])
def test_workers_are_the_machines_unless_told(value, expected, monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", value)
    assert n_workers() == expected
    monkeypatch.delenv("FIELDLENS_WORKERS")
    assert n_workers() == os.cpu_count()


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " "])
def test_bad_number_of_workers_is_refused(value, monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", value)
    with pytest.raises(ConfigError, match="FIELDLENS_WORKERS"):
        n_workers()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_ordered_map_keeps_the_order(workers, monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", workers)

    def late_when_early(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    got = list(ordered_map(late_when_early, range(20), window=6))
    assert got == [number * number for number in range(20)]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(), max_size=20), st.integers(1, 9))
def test_ordered_map_is_map(items, window):
    assert list(ordered_map(lambda x: x + 1, items, window=window)) == [x + 1 for x in items]


def test_ordered_map_holds_at_most_a_window(monkeypatch):
    monkeypatch.setenv("FIELDLENS_WORKERS", "4")
    lock, started, most = threading.Lock(), 0, 0
    taken = 0

    def work(number: int) -> int:
        nonlocal started, most
        with lock:
            started += 1
            most = max(most, started - taken)
        return number

    for _ in ordered_map(work, range(60), window=5):
        with lock:
            taken += 1
    assert started == 60
    # One more: it was handed over, but is not counted as taken yet.
    assert most <= 6


def test_ordered_map_raises_where_the_fault_is_and_ends_its_threads():
    def work(number: int) -> int:
        if number == 3:
            raise CorruptImageError("x.png", "no")
        return number

    before = threading.active_count()
    results = ordered_map(work, range(50), window=4)
    with pytest.raises(CorruptImageError):
        list(results)
    assert threading.active_count() == before


def test_ordered_map_can_be_left_early():
    before = threading.active_count()
    results = ordered_map(lambda x: x, range(1000), window=4)
    assert next(iter(results)) == 0
    results.close()
    assert threading.active_count() == before

"""Which candidates are looked at again: the best, the front, and no baseline."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.search.elites import best, elites, front, proposed
from pipelines.search.records import Record, Score
from pipelines.search.space import Network
from pipelines.search.study import Candidate
from tests.toy_search import SPACE


def candidate(name: int, accuracy=0.9, ratio=1.0, reward=0.5, baseline="") -> Candidate:
    """A network is told by its side alone."""
    score = Score(accuracy=accuracy, ratio=ratio, ms=ratio)
    record = Record(key=str(name), line="", image_px=name, score=score)
    return Candidate(0, Network(SPACE.base, name), record, reward, baseline)


def names(candidates) -> list[int]:
    return [each.network.image_px for each in candidates]


TABLE = [
    candidate(1, 0.90, 1.0, 0.70, "mobilenet_v2"),
    candidate(2, 0.95, 2.0, 0.60),  # most accurate
    candidate(3, 0.80, 0.2, 0.50),  # quickest
    candidate(4, 0.90, 0.7, 0.90),  # best
    candidate(5, 0.90, 0.8, 0.88),  # second, and on no front
    candidate(4, 0.90, 0.7, 0.90),  # proposed again
    candidate(1, 0.90, 1.0, 0.99),  # a baseline, proposed as well
    candidate(6, 0.99, 0.1, None),  # its latency was refused
    candidate(7, 0.95, 2.0, 0.40),  # as good as 2
    candidate(8, 0.95, 2.1, 0.40),  # as accurate, and slower
]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (proposed(TABLE), [2, 3, 4, 5, 7, 8]),
        (best(TABLE, 2), [4, 5]),
        (best(TABLE, 0), []),
        (best(TABLE, 99), [4, 5, 2, 3, 7, 8]),
        (front(TABLE), [3, 4, 2, 7]),
        (elites(TABLE, 2), [4, 5, 2, 3, 7]),
        (elites(TABLE, 0), [4, 2, 3, 7]),
        (elites(TABLE[:1], 5), []),
        (elites([], 5), []),
    ],
)
def test_elites_of_a_table(found, expected):
    assert names(found) == expected


@given(st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([1.0, 2.0, 3.0]))))
def test_front_is_what_nothing_is_better_than(places):
    every = [candidate(n, *place) for n, place in enumerate(places)]
    beaten = {
        n
        for n, (accuracy, ratio) in enumerate(places)
        if any(a >= accuracy and r <= ratio and (a, r) != (accuracy, ratio) for a, r in places)
    }
    assert set(names(front(every))) == set(range(len(places))) - beaten

from __future__ import annotations

import numpy as np
import pytest

from pipelines.errors import DataError
from pipelines.metrics.attacks import attack_intervals, attack_rates
from pipelines.metrics.intervals import draw

IS_ATTACK = np.array([True, True, True, True, False, False, False, False, False])
PROBABILITY = np.array([0.9, 0.8, 0.3, 0.5, 0.1, 0.2, 0.7, 0.4, 0.0])
PERSONS = list("aabbaabbb")


def test_rates_by_hand():
    assert attack_rates(IS_ATTACK, PROBABILITY, 0.5) == {
        "apcer": 0.25,
        "bpcer": 0.2,
        "acer": pytest.approx(0.225),
    }


def test_intervals_are_of_whole_persons_and_around_the_rates():
    found = attack_intervals(draw(PERSONS, 500, 1), IS_ATTACK, PROBABILITY, 0.5)
    for name, value in attack_rates(IS_ATTACK, PROBABILITY, 0.5).items():
        assert found[name].value == pytest.approx(value, abs=1e-6)
        assert found[name].low <= value <= found[name].high
    # Person a has no error, b has one of each sort.
    assert (found["apcer"].low, found["apcer"].high) == (0.0, 0.5)
    assert found["acer"].high == pytest.approx((0.5 + 1 / 3) / 2, abs=1e-6)


@pytest.mark.parametrize("is_attack", [np.ones(3, bool), np.zeros(3, bool)])
def test_one_sort_alone_has_no_rates(is_attack):
    with pytest.raises(DataError, match="attacks and others"):
        attack_rates(is_attack, np.zeros(3), 0.5)

"""ACC (LAT / T)^w: its two forms, what makes it grow, and its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config.search import RewardParams
from pipelines.search.records import Score
from pipelines.search.reward import reward, reward_of

SOFT = RewardParams(alpha=-0.07, beta=-0.07)
HARD = RewardParams()

accuracies = st.floats(0, 1)
latencies = st.floats(1e-6, 1e6)
weights = st.floats(-1, 0)


@pytest.mark.parametrize(
    ("params", "accuracy", "latency", "expected"),
    [
        # Tan et al. 2019, section 3: twice the latency at 1.05 times the accuracy is worth as much.
        (SOFT, 0.8, 0.75, 0.8),
        (SOFT, 0.8 * 1.05, 1.5, 0.8 * 1.05 * 2**-0.07),
        (SOFT, 0.8, 0.375, 0.8 * 2**0.07),
        (HARD, 0.8, 0.75, 0.8),
        (HARD, 0.8, 0.1, 0.8),
        (HARD, 0.8, 1.5, 0.4),
        (HARD, 0.0, 9.0, 0.0),
    ],
)
def test_reward_is_that_of_the_paper(params, accuracy, latency, expected):
    assert reward(accuracy, latency, 0.75, params) == pytest.approx(expected, rel=1e-12)


@given(accuracies, accuracies, latencies, latencies, weights, weights, latencies)
def test_more_accurate_or_quicker_is_never_worth_less(a, b, one, other, alpha, beta, target):
    params = RewardParams(alpha=alpha, beta=beta)
    low, high = sorted((a, b))
    assert reward(low, one, target, params) <= reward(high, one, target, params)
    quick, slow = sorted((one, other))
    assert reward(a, quick, target, params) >= reward(a, slow, target, params) * (1 - 1e-9)
    assert reward(a, target, target, params) == a


@given(accuracies, latencies, latencies, st.floats(0.01, 100))
def test_unit_of_latency_does_not_matter(accuracy, latency, target, unit):
    plain = reward(accuracy, latency, target, SOFT)
    assert reward(accuracy, latency * unit, target * unit, SOFT) == pytest.approx(plain)


def test_target_in_ms_looks_at_ms_and_a_refused_latency_is_worth_nothing_at_all():
    score = Score(accuracy=0.9, ratio=1.5, ms=30)
    assert reward_of(score, HARD) == pytest.approx(0.45)
    assert reward_of(score, RewardParams(target_ms=30)) == 0.9
    assert reward_of(score, RewardParams(target_ms=15)) == pytest.approx(0.45)
    assert reward_of(score.model_copy(update={"refusal": "two passes differ"}), HARD) is None

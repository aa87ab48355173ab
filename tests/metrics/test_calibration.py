from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from pipelines.errors import DataError
from pipelines.metrics.calibration import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    fit_temperature,
    measured,
    operating_point,
)


def drawn(temperature: float, n: int, c: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels as often as the logits at that temperature say."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (n, c))
    cumulative = softmax(logits / temperature, axis=1).cumsum(axis=1)
    class_index = (rng.uniform(size=(n, 1)) > cumulative).sum(axis=1)
    return logits.astype(np.float32), np.minimum(class_index, c - 1)


@st.composite
def answers(draw):
    n, c = draw(st.integers(1, 30)), draw(st.integers(2, 5))
    logits = draw(hnp.arrays(np.float32, (n, c), elements=st.floats(-50, 50, width=32)))
    class_index = draw(hnp.arrays(np.int64, n, elements=st.integers(0, c - 1)))
    return logits, class_index


def negative_log_likelihood(logits, class_index, temperature=1.0) -> float:
    rows = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return -rows[np.arange(len(rows)), class_index].mean()


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0, 1.8, 5.0])
def test_known_temperature_is_found_again(temperature):
    assert fit_temperature(*drawn(temperature, 20_000)) == pytest.approx(temperature, rel=0.04)


def test_it_is_the_minimum_that_scipy_finds():
    logits, class_index = drawn(0.6, 150)

    def objective(inverse: float) -> float:
        nll = negative_log_likelihood(logits, class_index, 1 / inverse)
        return len(logits) * nll + (inverse - 1) ** 2 / 2

    found = minimize_scalar(objective, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert fit_temperature(logits, class_index) == pytest.approx(1 / found.x, rel=1e-5)


@given(answers())
def test_val_likelihood_is_never_worsened(found):
    logits, class_index = found
    temperature = fit_temperature(logits, class_index)
    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    after = negative_log_likelihood(logits, class_index, temperature)
    # 6 decimals of the temperature are written.
    assert after <= negative_log_likelihood(logits, class_index) + 1e-4


@given(answers(), st.floats(-20, 20))
def test_what_is_added_to_all_logits_of_an_image_changes_nothing(found, offset):
    logits, class_index = found
    shifted = logits.astype(np.float64) + offset
    assert fit_temperature(shifted, class_index) == pytest.approx(
        fit_temperature(logits, class_index), rel=1e-4
    )


@pytest.mark.parametrize(
    ("logits", "class_index", "low", "high"),
    [
        pytest.param([[0.0, 0, 0]] * 5, [0, 1, 2, 0, 1], 1, 1, id="says nothing"),
        pytest.param([[4.0, 0]] * 8, [0] * 8, 0.5, 0.99, id="few, all right: not certain of all"),
        pytest.param([[4.0, 0]] * 5000, [0] * 5000, 0.2, 0.7, id="many, all right"),
        pytest.param([[4.0, 0]] * 200, [1] * 200, 20, 20, id="all wrong: as unsure as may be"),
        pytest.param([[1e30, 0.0]] * 4, [0] * 4, 0.99, 1.01, id="huge, all right"),
        pytest.param([[1e30, 0.0]] * 4, [0, 1, 0, 1], 20, 20, id="huge, half right"),
        pytest.param([[2.0, 0]], [0], 0.8, 1, id="one image"),
    ],
)
def test_extremes_stay_within_bounds(logits, class_index, low, high):
    temperature = fit_temperature(np.float32(logits), np.array(class_index))
    assert low - 1e-6 <= temperature <= high + 1e-6


@pytest.mark.parametrize(
    "logits",
    [np.zeros((0, 3), np.float32), np.float32([[np.nan, 1]]), np.float32([[np.inf, 1]])],
    ids=["none", "NaN", "infinity"],
)
def test_logits_that_say_nothing_are_refused(logits):
    with pytest.raises(DataError, match="the temperature needs val images with finite logits"):
        fit_temperature(logits, np.zeros(len(logits), np.int64))


# -- operating points -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("probabilities", "is_positive", "min_specificity", "threshold", "sensitivity", "specificity"),
    [
        # Parted: halfway between.
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.9, 0.5, 1.0, 1.0),
        # One alarm in two is allowed, but buys nothing: the higher threshold stays.
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 0.5, 0.5, 1.0, 1.0),
        # One alarm in two is allowed, and buys the positive at 0.3.
        ([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1], 0.5, 0.2, 1.0, 0.5),
        ([0.1, 0.4, 0.3, 0.9], [0, 0, 1, 1], 0.6, 0.65, 0.5, 1.0),
        # A positive beside a negative that may not be alarmed is not found.
        ([0.4, 0.4, 0.9], [0, 1, 1], 0.9, 0.65, 0.5, 1.0),
        # No positive above the negatives: none is found, none is alarmed.
        ([0.9, 0.2], [0, 1], 0.9, 0.95, 0.0, 1.0),
        # Ten negatives, 90 %: exactly one alarm, whatever 1 - 0.9 is in binary.
        ([*np.arange(10) / 10, 0.85], [0] * 10 + [1], 0.9, 0.825, 1.0, 0.9),
        # The positives are all at 1.
        ([0.0, 0.5, 1.0, 1.0], [0, 0, 1, 1], 0.9, 0.75, 1.0, 1.0),
    ],
)
def test_operating_point_edges(
    probabilities, is_positive, min_specificity, threshold, sensitivity, specificity
):
    point = operating_point(np.array(probabilities), np.array(is_positive, bool), min_specificity)
    assert point.threshold == pytest.approx(threshold)
    assert (point.sensitivity, point.specificity) == (sensitivity, specificity)
    assert point.min_specificity == min_specificity
    assert (point.n_positive, point.n_negative) == (sum(is_positive), is_positive.count(0))


@given(st.data())
def test_no_threshold_that_is_specific_enough_finds_more(data):
    grid = st.integers(0, 19).map(lambda number: number / 20)
    said = np.array(data.draw(st.lists(grid, min_size=2, max_size=25)))
    others = st.lists(st.booleans(), min_size=len(said) - 2, max_size=len(said) - 2)
    is_positive = np.array([True, False, *data.draw(others)])
    wanted = data.draw(st.sampled_from([0.5, 0.8, 0.9, 0.95]))
    point = operating_point(said, is_positive, wanted)
    assert point.specificity >= wanted
    for threshold in np.arange(-1, 42) / 40:
        other = measured(threshold, said, is_positive)
        assert other["specificity"] < wanted or other["sensitivity"] <= point.sensitivity
        if other["specificity"] >= wanted and other["sensitivity"] == point.sensitivity:
            assert other["specificity"] <= point.specificity


@pytest.mark.parametrize(
    ("probabilities", "is_positive", "message"),
    [
        ([0.2, 0.4], [0, 0], "got 0 with it of 2"),
        ([0.2, 0.4], [1, 1], "got 2 with it of 2"),
        ([1.0, 1.0, 1.0], [0, 0, 1], "no threshold has a specificity of 0.9"),
    ],
)
def test_operating_point_that_there_is_not(probabilities, is_positive, message):
    with pytest.raises(DataError, match=message):
        operating_point(np.array(probabilities), np.array(is_positive, bool), 0.9)


def test_measures_without_a_class_are_not_defined():
    found = measured(0.5, np.array([0.2, 0.7]), np.array([True, True]))
    assert found["sensitivity"] == 0.5
    assert found["specificity"] is None

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from pipelines.metrics.abstention import fit_abstention
from pipelines.metrics.calibration import operating_point
from pipelines.metrics.certainty import served_metrics
from pipelines.serving.bundle import Bundle, read_bundle

RNG = np.random.default_rng(2)
CLASS_INDEX = RNG.integers(0, 3, 40)
LOGITS = (RNG.normal(size=(40, 3)) + 1.5 * np.eye(3)[CLASS_INDEX]).astype(np.float32)
BEFORE, AFTER = (softmax(LOGITS.astype(float) / temperature, axis=1) for temperature in (1, 0.5))
POINT = operating_point(AFTER[:, 1], CLASS_INDEX == 1, 0.9)


@pytest.fixture
def bundle(tiny_project) -> Bundle:
    plain = read_bundle(tiny_project.task("tiny").candidate)
    rows = np.random.default_rng(0).uniform(size=(20, 3)).astype(np.float32)
    trust = {
        "operating_points": {"green_tile": POINT},
        "abstention": fit_abstention(rows, rows, 0.9),
    }
    return plain.model_copy(update={"temperature": 0.5, **trust})


def test_measures_of_the_served_file(bundle):
    found = served_metrics(bundle, CLASS_INDEX, LOGITS, np.arange(40) < 10, 10)
    truth = np.eye(3)[CLASS_INDEX]
    calibration = found["calibration"]
    assert calibration["temperature"] == 0.5
    for name, said in (("before", BEFORE), ("after", AFTER)):
        brier = ((said - truth) ** 2).sum(axis=1).mean()
        assert calibration[f"brier_{name}"] == pytest.approx(brier, abs=1e-6)
    assert calibration["ece_before"] != calibration["ece_after"]
    is_green, says_green = CLASS_INDEX == 1, AFTER[:, 1] >= POINT.threshold
    assert found["operating_points"] == {
        "green_tile": {
            "threshold": POINT.threshold,
            "min_specificity": 0.9,
            "sensitivity": pytest.approx(says_green[is_green].mean()),
            "specificity": pytest.approx((~says_green[~is_green]).mean()),
            "n_positive": int(is_green.sum()),
            "n_negative": int((~is_green).sum()),
        }
    }
    is_right = AFTER.argmax(axis=1) == CLASS_INDEX
    assert found["abstention"] == {
        "acceptance": 0.9,
        "threshold": bundle.abstention.threshold,
        "refused": 0.25,
        "accuracy_of_accepted": pytest.approx(is_right[10:].mean()),
    }


def test_what_is_not_there_is_not_measured(bundle):
    plain = bundle.model_copy(update={"operating_points": {}, "abstention": None})
    found = served_metrics(plain, CLASS_INDEX, LOGITS, None, 10)
    assert found["operating_points"] == {}
    assert found["abstention"] is None
    all_refused = served_metrics(bundle, CLASS_INDEX, LOGITS, np.ones(40, bool), 10)
    assert all_refused["abstention"]["accuracy_of_accepted"] is None
    only_red = served_metrics(bundle, np.zeros(40, np.int64), LOGITS, None, 10)
    assert only_red["operating_points"]["green_tile"]["sensitivity"] is None

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from pipelines.metrics.abstention import fit_abstention
from pipelines.metrics.certainty import served_metrics
from pipelines.plots.served import served_figures
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.trust import OperatingPoint

POINT = OperatingPoint(
    threshold=0.4,
    min_specificity=0.9,
    sensitivity=0.8,
    specificity=0.95,
    n_positive=4,
    n_negative=8,
)


@pytest.fixture
def bundle(tiny_project) -> Bundle:
    plain = read_bundle(tiny_project.task("tiny").candidate)
    rows = np.random.default_rng(0).uniform(size=(20, 3)).astype(np.float32)
    abstention = fit_abstention(rows, rows, 0.9)
    return plain.model_copy(
        update={
            "temperature": 0.5,
            "operating_points": {"green_tile": POINT},
            "abstention": abstention,
        }
    )


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    class_index = rng.integers(0, 3, 40)
    return class_index, (rng.normal(size=(40, 3)) + 1.5 * np.eye(3)[class_index]).astype(np.float32)


def test_measures_of_the_served_file(bundle, answers):
    class_index, logits = answers
    is_refused = np.arange(40) < 10
    found = served_metrics(bundle, class_index, logits, is_refused, 10)
    truth = np.eye(3)[class_index]
    after = softmax(logits.astype(float) / 0.5, axis=1)
    before = softmax(logits.astype(float), axis=1)
    calibration = found["calibration"]
    assert calibration["temperature"] == 0.5
    for name, said in (("before", before), ("after", after)):
        brier = ((said - truth) ** 2).sum(axis=1).mean()
        assert calibration[f"brier_{name}"] == pytest.approx(brier, abs=1e-6)
    assert calibration["ece_before"] != calibration["ece_after"]
    is_green, says_green = class_index == 1, after[:, 1] >= 0.4
    assert found["operating_points"] == {
        "green_tile": {
            "threshold": 0.4,
            "min_specificity": 0.9,
            "sensitivity": pytest.approx(says_green[is_green].mean()),
            "specificity": pytest.approx((~says_green[~is_green]).mean()),
            "n_positive": int(is_green.sum()),
            "n_negative": int((~is_green).sum()),
        }
    }
    is_right = after.argmax(axis=1) == class_index
    assert found["abstention"] == {
        "acceptance": 0.9,
        "threshold": bundle.abstention.threshold,
        "refused": 0.25,
        "accuracy_of_accepted": pytest.approx(is_right[10:].mean()),
    }


def test_what_is_not_there_is_not_measured(bundle, answers):
    class_index, logits = answers
    plain = bundle.model_copy(update={"operating_points": {}, "abstention": None})
    found = served_metrics(plain, class_index, logits, None, 10)
    assert found["operating_points"] == {}
    assert found["abstention"] is None
    assert "threshold.png" not in served_figures(plain, class_index, logits, 10)
    all_refused = served_metrics(bundle, class_index, logits, np.ones(40, bool), 10)
    assert all_refused["abstention"]["accuracy_of_accepted"] is None
    only_red = np.zeros(40, np.int64)
    assert (
        served_metrics(bundle, only_red, logits, None, 10)["operating_points"]["green_tile"][
            "sensitivity"
        ]
        is None
    )


def test_figures_show_the_threshold_and_are_the_same_bytes_twice(bundle, answers):
    figures = served_figures(bundle, *answers, 10)
    assert set(figures) == {"confusion.png", "reliability.png", "roc.png", "threshold.png"}
    assert served_figures(bundle, *answers, 10) == figures
    assert min(Image.open(io.BytesIO(figures["threshold.png"])).size) >= 390
    uncalibrated = bundle.model_copy(update={"temperature": 1.0})
    assert (
        served_figures(uncalibrated, *answers, 10)["reliability.png"] != figures["reliability.png"]
    )
    # A label that no image has is drawn without its curve.
    assert served_figures(bundle, np.zeros(40, np.int64), answers[1], 10)["threshold.png"]

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipelines.metrics.calibration import operating_point
from pipelines.plots.figures import confusion, roc
from pipelines.plots.served import drawable, served_figures, thresholds
from pipelines.serving.bundle import read_bundle
from pipelines.serving.classification import softmax


def test_figures_show_the_threshold_and_are_the_same_bytes_twice(tiny_project):
    rng = np.random.default_rng(2)
    true = rng.integers(0, 3, 40)
    logits = (rng.normal(size=(40, 3)) + 1.5 * np.eye(3)[true]).astype(np.float32)
    point = operating_point(softmax(logits, 0.5)[:, 1], true == 1, 0.9)
    plain = read_bundle(tiny_project.task("tiny").candidate)
    fitted = {"temperature": 0.5, "operating_points": {"green_tile": point}}
    bundle = plain.model_copy(update=fitted)
    figures = served_figures(bundle, true, logits, 10)
    assert set(figures) == {"confusion.png", "reliability.png", "roc.png", "threshold.png"}
    assert served_figures(bundle, true, logits, 10) == figures
    assert min(Image.open(io.BytesIO(figures["threshold.png"])).size) >= 390
    # A label that no image has is drawn without its curve.
    assert served_figures(bundle, np.zeros(40, np.int64), logits, 10)["threshold.png"]
    uncalibrated = served_figures(plain, true, logits, 10)
    assert "threshold.png" not in uncalibrated
    assert uncalibrated["reliability.png"] != figures["reliability.png"]


@pytest.mark.parametrize("n_classes", [12, 40, 41, 200, pytest.param(1000, marks=pytest.mark.slow)])
def test_figures_are_bounded_in_pixels_however_many_classes_there_are(n_classes):
    rng = np.random.default_rng(1)
    labels = [
        f"a_rather_long_name_of_a_species_of_number_{index:04d}" for index in range(n_classes)
    ]
    true = np.arange(4 * n_classes) % n_classes
    probabilities = rng.dirichlet(np.full(n_classes, 0.1), len(true))
    points = dict.fromkeys(labels, operating_point(probabilities[:, 0], true == 0, 0.9))
    for png in (
        confusion(true, probabilities.argmax(axis=1), labels, "test split"),
        confusion(true, true, labels, ""),
        roc(true, probabilities, labels),
        thresholds(true, probabilities, labels, points),
    ):
        assert max(Image.open(io.BytesIO(png)).size) <= 4000


def test_names_that_the_font_has_are_drawn_and_others_give_way_to_the_label():
    labels = ["jian_kang", "zdorovyy", "grossenfehler"]
    names = ["健康", "здоровый", "Größenfehler"]
    assert drawable(labels, names) == ["jian_kang", "здоровый", "Größenfehler"]

from __future__ import annotations

import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipelines.plots import figures as plots
from pipelines.plots.figures import confusion

LABELS = ("ash", "birch", "cedar")


def figures() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    class_index = rng.integers(0, 3, 60)
    probabilities = rng.dirichlet(np.ones(3), 60)
    history = [
        {"epoch": "1", "phase": "head", "train_loss": "1.0", "val_loss": "", "val_accuracy": "0.5"},
        {"epoch": "2", "phase": "tail", "train_loss": "0.5", "val_loss": 0.7, "val_accuracy": 0.9},
    ]
    images = [rng.integers(0, 255, (8, 8, 3), dtype=np.uint8) for _ in range(5)]
    return {
        "curves": plots.training_curves(history),
        "confusion": confusion(class_index, probabilities.argmax(axis=1), LABELS, "tiny"),
        "reliability": plots.reliability(class_index, probabilities, 10, probabilities[::-1]),
        "roc": plots.roc(class_index, probabilities, LABELS),
        "grid": plots.sample_grid(images, list("abcde"), [True, False, True, False, True]),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return figures()


@pytest.mark.parametrize("name", ["curves", "confusion", "reliability", "roc", "grid"])
def test_figure_is_a_png_wide_enough_for_a_phone_and_says_no_more(drawn, name):
    image = Image.open(io.BytesIO(drawn[name]))
    assert image.format == "PNG"
    assert min(image.size) >= 390
    assert set(image.info) <= {"dpi"}
    # Something is drawn: more than paper and ink.
    assert len(np.unique(np.asarray(image.convert("L")))) > 10


def test_same_data_gives_the_same_bytes_whatever_the_user_has_set(drawn):
    with matplotlib.rc_context({"font.size": 30, "savefig.dpi": 20, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        assert figures() == drawn
        assert dict(matplotlib.rcParams) == before


def test_pyplot_is_never_loaded():
    code = (
        "import sys, numpy as np; from pipelines.plots.figures import confusion;"
        "confusion(np.array([0, 1]), np.array([0, 1]), ('a', 'b'), '');"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_edges_are_drawn_without_a_warning():
    one = np.array([0])
    certain = np.array([[1.0, 0.0, 0.0]])
    for png in (
        plots.training_curves([]),
        plots.training_curves([{"epoch": 1, "train_loss": float("nan")}]),
        confusion(one, one, LABELS, ""),
        plots.reliability(one, certain, 10, certain),
        plots.roc(one, certain, LABELS),
        plots.sample_grid([], [], []),
    ):
        assert png.startswith(b"\x89PNG")


def test_the_largest_confusions_are_the_ones_that_are_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "pipelines.plots.figures.Figure",
        lambda **size: drawn.append(Figure(**size)) or drawn[-1],
    )
    true = np.repeat(np.arange(50), 4)
    answers = true.copy()
    answers[:3] = 7
    answers[8:10] = 9
    confusion(true, answers, [f"c{index}" for index in range(50)], "")
    axes = drawn[0].axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["c0 → c7", "c2 → c9"]
    assert [bar.get_width() for bar in axes.patches] == [3, 2]
    assert "5 of 5 wrong answers, of 200 images" in axes.get_title()

"""What every task's painter promises; what is its own is in the test of its task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import load_card
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.tasks import load_task

PATHS = Paths(Path(__file__).resolve().parents[2])
TASKS = load_params(PATHS.params).tasks
#: Tasks that paint; one that `fieldlens new` made has images of its own.
PAINTED = [name for name, task in TASKS.items() if task.fetch.source.kind == "sample"]
CLASSES = [(task, label) for task in PAINTED for label in load_card(PATHS.task(task).card).labels]


def painted(
    task: str, label: str, subject: int = 1, shot: int = 2, side_px: int = 128
) -> Image.Image:
    paint = load_task(TASKS[task].domain, task).paint
    return paint(label, np.random.default_rng(subject), np.random.default_rng(shot), side_px)


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float64)


@pytest.mark.parametrize(("task", "label"), CLASSES)
@pytest.mark.parametrize("side_px", [64, 131])
def test_every_label_of_the_card_is_an_rgb_square(task, label, side_px):
    image = painted(task, label, side_px=side_px)
    assert (image.mode, image.size) == ("RGB", (side_px, side_px))
    assert levels(image).std() > 8


@pytest.mark.parametrize(("task", "label"), CLASSES)
def test_same_generators_give_the_same_bytes(task, label):
    assert painted(task, label).tobytes() == painted(task, label).tobytes()


@pytest.mark.parametrize(("task", "label"), CLASSES)
def test_another_subject_or_shot_is_another_picture(task, label):
    one = levels(painted(task, label))
    assert np.abs(one - levels(painted(task, label, subject=3))).mean() > 1
    assert np.abs(one - levels(painted(task, label, shot=4))).mean() > 3


@pytest.mark.parametrize("task", PAINTED)
def test_card_says_what_to_do_next_for_each_label(task):
    card = load_card(PATHS.task(task).card)
    assert set(card.next_steps) == set(card.labels)

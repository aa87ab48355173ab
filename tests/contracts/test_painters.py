"""What every painter promises: classes that can be told, by the subject and by nothing else."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.card import DEFAULT_KIND, load_card
from pipelines.paths import Paths
from pipelines.samples.folder import load_painter, painted_names
from tests.shipped import SHIPPED

PATHS = Paths(Path(__file__).resolve().parents[2])
LABELS = {task: painted_names(load_card(PATHS.task(task).card)) for task in SHIPPED}
#: Those whose label is the whole picture's; of others it names one of the things in it.
WHOLE = [task for task in SHIPPED if load_card(PATHS.task(task).card).kind == DEFAULT_KIND]
CLASSES = [(task, label) for task in SHIPPED for label in LABELS[task]]


def painted(
    task: str, label: str, subject: int = 1, shot: int = 2, side_px: int = 64
) -> Image.Image:
    paint = load_painter(task)
    return paint(label, np.random.default_rng(subject), np.random.default_rng(shot), side_px)


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float64)


@cache
def dozen(task: str, label: str) -> np.ndarray:
    """(12, 64, 64, 3): the same subjects and shots for each label."""
    return np.stack([levels(painted(task, label, seed, seed + 50, 64)) for seed in range(12)])


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


@pytest.mark.parametrize("task", WHOLE)
def test_labels_can_be_told_apart(task):
    for one, other in combinations(LABELS[task], 2):
        difference = np.abs(dozen(task, one) - dozen(task, other)).mean(axis=(1, 2, 3))
        assert difference.min() > 2, f"{one} and {other} look alike"


@pytest.mark.parametrize("task", SHIPPED)
def test_mean_colour_does_not_tell_the_label(task):
    means = np.stack([dozen(task, label).mean(axis=(1, 2)) for label in LABELS[task]])
    far = np.abs(means.mean(axis=1) - means.mean(axis=(0, 1))).max(axis=0)
    assert (far < means.std(axis=1).mean(axis=0) / 2).all()


@pytest.mark.parametrize("task", ["fish_species", "tomato_leaf"])
def test_what_lies_behind_is_the_same_for_all_labels(task):
    # Of the other painters, exposure or what hangs into the corners differs a little.
    corners = np.stack([dozen(task, label)[:, :3, :3] for label in LABELS[task]])
    assert np.median(np.ptp(corners, axis=0)) < 2


@pytest.mark.parametrize("task", ["chest_xray", "weld_defect"])
def test_radiograph_has_no_colour(task):
    for label in LABELS[task]:
        assert np.ptp(dozen(task, label), axis=-1).max() == 0


@pytest.mark.parametrize("task", SHIPPED)
def test_card_says_what_to_do_next_for_each_label(task):
    card = load_card(PATHS.task(task).card)
    assert set(card.next_steps) == set(card.labels)

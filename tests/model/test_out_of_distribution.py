"""The released models know what they do not know: the other tasks' pictures, noise, text, nothing.

Training moves this without anybody looking at it (docs/adr/0018): the better a head learns its
labels, the less its embedding says of anything else.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from pipelines.serving.predictor import Predictor
from tests.model.conftest import CHECKOUT, PATHS, TASKS, pictures_of

#: Test pictures of the task itself, and of each other task.
N_OWN, N_OF_OTHERS = 100, 20
#: What was asked of the mean over tasks, here of each.
MIN_AUROC = 0.97
#: Shares of pictures that are taken for the task's own.
MAX_OOD_ACCEPTED, MAX_SYNTHETIC_ACCEPTED = 0.1, 0.05
#: These paint one thing, portraits, one or some in a room: what one knows the others are.
PORTRAITS = {"mask_detection", "mask_scene", "faces", "face_spoof"}

pytestmark = [pytest.mark.model, pytest.mark.slow]


def some_of(task: str, most: int) -> list[Path]:
    pictures = pictures_of(PATHS.task(task))
    return pictures[:: max(1, len(pictures) // most)]


def painted(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    monkeypatch.syspath_prepend(str(CHECKOUT / "benchmarks"))
    kinds = importlib.import_module("abstention").kinds()
    return [image for images in kinds.values() for image in images]


def judged(predictor: Predictor, sources: Sequence[Path | Image.Image]) -> tuple[np.ndarray, float]:
    """Out-of-distribution scores of pictures, and the share that is accepted."""
    answers = [predictor.predict(source) for source in sources]
    scores = np.array([answer.ood_score for answer in answers])
    return scores, 1 - float(np.mean([answer.is_ood for answer in answers]))


@pytest.mark.parametrize("task", TASKS)
def test_out_of_distribution_pictures_are_told(task, monkeypatch):
    missing = [name for name in TASKS if not PATHS.task(name).manifest.is_file()]
    if missing or not PATHS.task(task).bundle.is_file():
        pytest.skip(f"{PATHS.root}: there are no models of all tasks; `make repro` makes them")
    predictor = Predictor.load(PATHS.task(task).bundle)
    alike = PORTRAITS if task in PORTRAITS else {task}
    others = [path for name in TASKS if name not in alike for path in some_of(name, N_OF_OTHERS)]
    own, _ = judged(predictor, some_of(task, N_OWN))
    ood, accepted = judged(predictor, others)
    truth = np.repeat([0, 1], [len(own), len(ood)])
    assert roc_auc_score(truth, np.concatenate([own, ood])) >= MIN_AUROC
    assert accepted <= MAX_OOD_ACCEPTED
    _, accepted = judged(predictor, painted(monkeypatch))
    assert accepted <= MAX_SYNTHETIC_ACCEPTED

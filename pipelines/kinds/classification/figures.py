"""What `train` draws of a classification: the confusion of the val split, and some answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.loaders import Pictures
from pipelines.plots.figures import confusion, sample_grid

#: Val pictures in the figure of sample predictions.
_N_SAMPLES = 12


def val_figures(
    logits: NDArray[np.float32],
    class_index: NDArray[np.int64],
    pictures: Pictures,
    labels: Sequence[str],
) -> dict[str, bytes]:
    """The confusion matrix, and pictures from all over the split with their answers.

    Args:
        logits: (n, n_classes).
        class_index: (n,) true classes.
    """
    probabilities = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
    predicted = probabilities.argmax(axis=1)
    rows = np.linspace(0, len(predicted) - 1, min(_N_SAMPLES, len(predicted))).round().astype(int)
    samples = sample_grid(
        [pictures.plain(pictures.entries[row]) for row in rows],
        [f"{labels[predicted[row]]} {probabilities[row].max():.0%}" for row in rows],
        [bool(predicted[row] == class_index[row]) for row in rows],
    )
    matrix = confusion(class_index, predicted, labels, "val split")
    return {"val_confusion.png": matrix, "val_samples.png": samples}

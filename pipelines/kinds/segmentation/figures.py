"""What `train` draws of a segmentation: some val pictures with the outlines of truth and answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipelines.data.loaders import Pictures
from pipelines.kinds.segmentation.masks import Drawn, in_view
from pipelines.kinds.segmentation.train import at_cells
from pipelines.metrics.segmentation import dice
from pipelines.plots.masks import Outlined, mask_sheet

#: Val pictures in the figure.
_N_SAMPLES = 12


def val_masks(
    logits: NDArray[np.float32],
    truth: NDArray[Any],
    pictures: Pictures,
    labels: Sequence[str],
) -> dict[str, bytes]:
    """Pictures from all over the split, as the model sees them.

    Args:
        logits: (n, n_labels, h, w).
        truth: (n,) `Drawn`.
    """
    side = pictures.preprocess.crop_px
    shown, titles = [], []
    rows = np.linspace(0, len(truth) - 1, min(_N_SAMPLES, len(truth))).round().astype(int)
    for row in rows:
        drawn: Drawn = truth[row]
        entry = pictures.entries[row]
        true = in_view(drawn.read(), pictures.geometry(entry, [0])[0], side) > 0
        said = at_cells(torch.from_numpy(logits[row : row + 1]), (side, side)).numpy()[0]
        found = (said >= 0).any(axis=0)
        shown.append(Outlined(pictures.plain(entry), true, found))
        titles.append(f"Dice {float(dice(found, true)):.2f}")
    return {"val_samples.png": mask_sheet(shown, titles)}

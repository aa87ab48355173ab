"""Several pictures of one thing, one answer: leaves of a plant, frames of a fish, views of a part.

Pure; called by the apps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

#: A probability of 0 would veto every other picture; no calibrated model is that sure.
_LEAST = 1e-6


def combine(views: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The probabilities of several pictures of one thing, taken together.

    The mean of the log-probabilities, brought back to probabilities that add up to 1 (a geometric
    mean). One picture alone gives its own probabilities.

    Args:
        views: by picture, the probability of each label; the same labels in each, in [0, 1].

    Returns:
        By label, in the order of the first picture; they add up to 1.

    Raises:
        ValueError: if there is no picture, or the labels differ.

    References:
        Genest and Zidek 1986, "Combining probability distributions", Statistical Science 1(1): the
        logarithmic opinion pool with equal weights.
        Mrisho et al. 2020, "Accuracy of a smartphone-based object detection model, PlantVillage
        Nuru", Frontiers in Plant Science 11: six leaves of a plant instead of one.
    """
    if not views:
        raise ValueError("expected at least one picture, got none")
    labels = list(views[0])
    if any(list(view) != labels for view in views):
        raise ValueError("expected the same labels in the same order for each picture")
    table = np.array([[view[label] for label in labels] for view in views], dtype=np.float64)
    pooled = np.log(np.clip(table, _LEAST, 1.0)).mean(axis=0)
    exponentials = np.exp(pooled - pooled.max())
    shares = exponentials / exponentials.sum()
    return dict(zip(labels, map(float, shares), strict=True))

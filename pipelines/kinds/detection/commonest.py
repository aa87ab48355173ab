"""The commonest boxes: what is reached by somebody who has never looked at the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Boxes of a label that are told of every picture.
_N_TOLD = 20
_SEED = 0


def commonest(boxes: NDArray[np.floating], label: int) -> NDArray[np.float64]:
    """(k, 6) middles of clusters of boxes, the largest first, with their shares as scores.

    Args:
        boxes: (n, 4) corners, as shares of a view's side.
    """
    from sklearn.cluster import KMeans

    if not len(boxes):
        return np.empty((0, 6))
    n_clusters = min(_N_TOLD, len(np.unique(boxes.round(4), axis=0)))
    clusters = KMeans(n_clusters, n_init=3, random_state=_SEED).fit(boxes)
    shares = np.bincount(clusters.labels_, minlength=n_clusters) / len(boxes)
    order = np.argsort(-shares, kind="stable")
    middles = clusters.cluster_centers_[order]
    return np.column_stack([middles, shares[order], np.full(n_clusters, label)])


def commonest_of_others(
    truth: NDArray[np.floating], groups: Sequence[str], n_labels: int
) -> NDArray[np.float64]:
    """(n, k, 6) of each image the commonest boxes of the groups in the other half.

    Args:
        truth: (n, t, 5) corners as shares of the view's side, and number of the label.
    """
    names = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    half = np.array([names[group] % 2 for group in groups])
    told = np.zeros((len(truth), _N_TOLD * n_labels, 6))
    for side in (0, 1):
        others = truth[half != side].reshape(-1, 5)
        each = [commonest(others[others[:, 4] == label, :4], label) for label in range(n_labels)]
        rows = np.concatenate(each)
        told[half == side, : len(rows)] = rows
    return told

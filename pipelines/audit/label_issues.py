"""Labels that the other images speak against: confident learning.

A candidate is no verdict: it is an image that a person should look at. Called by `audit`.

References:
    Northcutt, Jiang and Chuang 2021, "Confident learning: estimating uncertainty in dataset
    labels", JAIR 70: thresholds in equation 2, candidates as the off-diagonal cells of the
    confident joint (equation 1, ties by the larger probability).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LabelIssue:
    """One doubtful label.

    Attributes:
        index: of the image.
        suggested: class that it is taken for.
        probability: of that class.
    """

    index: int
    suggested: int
    probability: float


def label_issues(
    class_index: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]
) -> list[LabelIssue]:
    """Images that are confidently of another class than their label says, the surest first.

    A class's threshold is the mean of its probability over the images that carry its label: what
    the model usually says of them. An image counts for the classes whose threshold it reaches.

    Args:
        class_index: (n,) classes by label; each of the c classes is there.
        probabilities: (n, c), each row from a model that did not see the image's group.
    """
    c = probabilities.shape[1]
    thresholds = np.array([probabilities[class_index == k, k].mean() for k in range(c)])
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = confident.argmax(axis=1)
    every = np.arange(len(class_index))
    # How much likelier the other class is: a near draw is the weakest doubt. Where the label is the
    # likelier one, the model does not speak against it, whatever the thresholds say.
    margin = probabilities[every, suggested] - probabilities[every, class_index]
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (margin > 0))
    order = np.argsort(-margin[rows], kind="stable")
    return [
        LabelIssue(int(row), int(suggested[row]), float(probabilities[row, suggested[row]]))
        for row in rows[order]
    ]


def spread(order: Sequence[int], class_index: NDArray[np.integer[Any]], n_wanted: int) -> list[int]:
    """The first of each class in turn, so that no class fills a sheet alone.

    Args:
        order: images, the most wanted first.
        class_index: (n,) class of every image.
        n_wanted: how many to take at most.
    """
    waiting: dict[int, list[int]] = {}
    for index in order:
        waiting.setdefault(int(class_index[index]), []).append(index)
    turns = [
        (turn, k, index) for k, indices in waiting.items() for turn, index in enumerate(indices)
    ]
    return [index for _, _, index in sorted(turns, key=lambda each: each[:2])[:n_wanted]]

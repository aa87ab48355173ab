"""What is taken for what, as a figure that stays legible however many classes there are.

Called by `train` and `evaluate`; confusion.csv has every answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.metrics.classification import confusion_counts
from pipelines.plots.curves import ORANGE, png, shortened, style

#: More classes than this: numbers in the cells would not be legible ...
_MAX_NUMBERED_CLASSES = 12
#: ... and than this, a matrix would not: 0.62 inches a class, 4,000 px.
_MAX_MATRIX_CLASSES = 40
#: Confusions that are drawn instead.
_LARGEST = 30


def confusion(
    class_index: NDArray[np.integer[Any]],
    predicted: NDArray[np.integer[Any]],
    labels: Sequence[str],
    title: str = "",
) -> bytes:
    """The confusion matrix; of more than 40 classes, its largest confusions as bars.

    In a matrix actual labels go down, answers across; shades are shares of a row, numbers images.

    Args:
        class_index: (n,) true classes.
        predicted: (n,) answers.
        labels: in the order of the classes.
        title: of the figure.
    """
    counts = confusion_counts(class_index, predicted, len(labels))
    if len(labels) > _MAX_MATRIX_CLASSES:
        return _largest(counts, labels, title)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.8, 1.8 + 0.62 * len(labels))
    names = [shortened(label) for label in labels]
    with style():
        figure = Figure(figsize=(side, side))
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(labels))
        axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("answer")
        axes.set_ylabel("actual")
        if len(labels) <= _MAX_NUMBERED_CLASSES:
            for row in places:
                for column in places:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    text = str(counts[row, column])
                    axes.text(column, row, text, ha="center", va="center", color=colour)
        if title:
            axes.set_title(title)
        return png(figure)


def _largest(counts: NDArray[np.int64], labels: Sequence[str], title: str) -> bytes:
    """The commonest wrong answers, one bar each, and how much of all of them they are."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    # By count, then by the share of the actual class, then by place: the same every time.
    share = wrong / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    order = np.lexsort((np.arange(wrong.size), -share.ravel(), -wrong.ravel()))[:_LARGEST]
    shown = [int(cell) for cell in order if wrong.flat[cell]]
    drawn = int(sum(wrong.flat[cell] for cell in shown))
    what = (
        f"the {len(shown)} largest confusions of {len(labels)} classes:\n"
        f"{drawn:,} of {int(wrong.sum()):,} wrong answers, of {int(counts.sum()):,} images"
    )
    with style():
        figure = Figure(figsize=(8, 1.8 + 0.3 * max(len(shown), 1)))
        axes = figure.subplots()
        for place, cell in enumerate(shown):
            row, column = divmod(cell, len(labels))
            axes.barh(place, wrong[row, column], height=0.62, color=ORANGE)
            axes.annotate(
                f"{wrong[row, column]} of {counts[row].sum()}",
                (wrong[row, column], place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
            )
        pairs = (divmod(cell, len(labels)) for cell in shown)
        names = [f"{shortened(labels[r])} → {shortened(labels[c])}" for r, c in pairs]
        axes.set_yticks(range(len(shown)), names, fontsize=10)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.set_xlim(0, max((int(wrong.flat[cell]) for cell in shown), default=1) * 1.25)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.set_title(f"{title}\n{what}" if title else what, fontsize=12)
        return png(figure)

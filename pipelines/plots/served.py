"""The figures of the test split: what the served file answers, and what a threshold costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipelines.plots.figures import (
    BLUE,
    GREY,
    ORANGE,
    confusion,
    png,
    reliability,
    roc,
    shortened,
    style,
)
from pipelines.serving.bundle import Bundle
from pipelines.serving.classification import softmax
from pipelines.serving.trust import OperatingPoint

_N_COLUMNS = 3
#: Labels that are drawn, at most.
_MAX_DRAWN = 12


def thresholds(
    class_index: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
    points: Mapping[str, OperatingPoint],
) -> bytes:
    """Sensitivity and specificity of each label over its threshold, the chosen one drawn.

    Of many labels, those are drawn that are found least often at the chosen threshold.

    Args:
        class_index: (n,) true classes.
        probabilities: (n, c), calibrated.
        labels: in the order of the columns.
        points: by label, chosen on val; labels without one are left out.
    """
    shown = [label for label in labels if label in points]
    n_points = len(shown)
    if n_points > _MAX_DRAWN:

        def found(label: str) -> float:
            index = labels.index(label)
            said = probabilities[class_index == index, index]
            return float((said >= points[label].threshold).mean()) if len(said) else 1.0

        least = sorted(shown, key=found)[:_MAX_DRAWN]
        shown = [label for label in shown if label in least]
    n_columns = max(1, min(_N_COLUMNS, len(shown)))
    n_rows = max(1, -(-len(shown) // n_columns))
    with style():
        figure = Figure(figsize=(max(4.4, 3.3 * n_columns), 3.1 * n_rows + 0.4))
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.flat[len(shown) :]:
            axes.set_axis_off()
        for place, label in enumerate(shown):
            axes, index, point = grid.flat[place], labels.index(label), points[label]
            is_positive = class_index == index
            said = probabilities[:, index].astype(np.float64)
            for name, values, colour, dash in (
                ("sensitivity", _share_from(said[is_positive]), BLUE, "-"),
                ("specificity", _share_below(said[~is_positive]), ORANGE, "--"),
            ):
                axes.plot(*values, dash, color=colour, lw=2, drawstyle="steps-pre", label=name)
            axes.axhline(point.min_specificity, color=GREY, lw=1, ls=":")
            axes.axvline(point.threshold, color="black", lw=1.2, label="chosen on val")
            axes.set(xlim=(0, 1), ylim=(-0.02, 1.04))
            axes.set_title(f"{shortened(label)}\nfrom {point.threshold:.3f}", fontsize=11)
            if place % n_columns == 0:
                axes.set_ylabel("share of images")
            if place >= len(shown) - n_columns:
                axes.set_xlabel("threshold")
        if n_points > len(shown):
            figure.suptitle(f"{len(shown)} of {n_points} labels: those found least often")
        handles, names = grid.flat[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=10)
        return png(figure)


def _share_from(said: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds, and the share of the values that reach each; of no values, nothing to draw."""
    at = np.concatenate([[0.0], np.sort(said), [1.0]])
    reach = 1 - np.searchsorted(np.sort(said), at, side="left") / max(len(said), 1)
    return (at, reach) if len(said) else (at[:0], at[:0])


def _share_below(said: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at, reach = _share_from(said)
    return at, 1 - reach


def served_figures(
    bundle: Bundle,
    class_index: NDArray[np.integer[Any]],
    logits: NDArray[np.float32],
    bins: int,
) -> dict[str, bytes]:
    """The figures of the test split by file name, from (n, c) logits of the served file."""
    before, after = softmax(logits), softmax(logits, bundle.temperature)
    names = drawable(bundle.labels, [bundle.name_of(label) for label in bundle.labels])
    title = f"{bundle.task}, {bundle.served.precision}, test split"
    figures = {
        "confusion.png": confusion(class_index, after.argmax(axis=1), names, title),
        "reliability.png": reliability(class_index, after, bins, before),
        "roc.png": roc(class_index, after, names),
    }
    if bundle.operating_points:
        figures["threshold.png"] = thresholds(
            class_index, after, bundle.labels, bundle.operating_points
        )
    return figures


def drawable(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """What to write on a figure for each label: its name, or the label where a glyph is missing.

    Matplotlib's own font has Latin, Greek and Cyrillic letters, and no Chinese, Japanese or Korean
    ones: these would be drawn as empty boxes, all alike.
    """
    if list(labels) == list(names):
        return list(labels)
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return [
        name if all(font.get_char_index(ord(letter)) for letter in name) else label
        for label, name in zip(labels, names, strict=True)
    ]

"""Figures as PNG bytes: the same data gives the same bytes, and a phone can show them.

Colours are Okabe and Ito's, which people with any colour vision tell apart; a second sign (dash,
marker, number) always says the same. Nothing here touches pyplot's global state or a file.
Throughout, ``class_index`` is (n,) true classes, ``predicted`` (n,) answers, ``probabilities``
(n, c), and ``labels`` stand in the order of the classes.

References:
    Okabe and Ito 2008, "Color Universal Design".
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from pipelines.metrics.classification import confusion_counts, reliability_bins

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#6B6B6B"
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES = ("-", "--", "-.", ":")
#: A figure 6 inches wide has 900 px: sharp on a phone, small in a report.
_DPI = 150
_STYLE = {
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
}
#: More curves than this cannot be told apart.
_MAX_CURVES = 12
#: Longer labels are cut in a figure, which they would widen.
_MAX_LABEL = 32
#: Pictures in a row of a grid.
_GRID_COLUMNS = 4


@contextmanager
def style() -> Iterator[None]:
    """Our settings on top of matplotlib's own, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file, without a version or a time."""
    buffer = io.BytesIO()
    # matplotlib would write its version into the file.
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def training_curves(history: Sequence[Mapping[str, Any]]) -> bytes:
    """Losses on the left, metrics of the val split on the right, over the epochs.

    Args:
        history: one mapping an epoch, as in history.csv: columns whose name holds ``loss`` go to
            the left, other ``val_`` columns to the right; a change of ``phase`` is marked.
    """
    columns = list(history[0]) if history else []
    losses = [column for column in columns if "loss" in column]
    metrics = [c for c in columns if c.startswith("val_") and "loss" not in c]
    epochs = np.arange(1, len(history) + 1)
    phases = [str(row.get("phase", "")) for row in history]
    changes = [index for index in range(1, len(phases)) if phases[index] != phases[index - 1]]
    with style():
        figure = Figure(figsize=(8, 3.6))
        for axes, names, heading in zip(
            figure.subplots(1, 2), (losses, metrics), ("loss", "val split"), strict=True
        ):
            for name, colour, dash in zip(names, cycle(_COLOURS), cycle(_DASHES), strict=False):
                values = [_as_float(row.get(name)) for row in history]
                axes.plot(epochs, values, dash, color=colour, marker="o", ms=3.5, label=name)
            for index in changes:
                axes.axvline(index + 0.5, color=GREY, lw=1, ls=":")
                axes.annotate(
                    phases[index],
                    (index + 0.5, 0.02),
                    xycoords=("data", "axes fraction"),
                    xytext=(3, 0),
                    textcoords="offset points",
                    color=GREY,
                    fontsize=10,
                )
            axes.set_xlabel("epoch")
            axes.set_title(heading)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if names:
                axes.legend(fontsize=10)
        return png(figure)


def _as_float(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


# -- answers --------------------------------------------------------------------------------------
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
    title: str,
) -> bytes:
    """The confusion matrix; of more than 40 classes, its largest confusions as bars.

    In a matrix actual labels go down, answers across; shades are shares of a row, numbers images.
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
        axes.set_title(f"{title}\n{what}", fontsize=12)
        return png(figure)


def reliability(
    class_index: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    bins: int,
    before: NDArray[np.floating[Any]],
) -> bytes:
    """How often the model is right (dots) when it says that it is so sure; the diagonal is honest.

    Args:
        bins: as in the expected calibration error.
        before: (n, c) probabilities before calibration, drawn as crosses.
    """
    found = reliability_bins(class_index, probabilities, bins)
    said = [entry.probability for entry in found]
    right = [entry.accuracy for entry in found]
    counts = np.asarray([entry.n for entry in found])
    with style():
        figure = Figure(figsize=(5, 5))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ls="--", color=GREY, lw=1.2, label="honest")
        raw = reliability_bins(class_index, before, bins)
        at = [entry.probability for entry in raw], [entry.accuracy for entry in raw]
        axes.plot(*at, "x--", color=ORANGE, lw=1.2, label="before calibration")
        axes.plot(said, right, color=BLUE, lw=1.5, zorder=2)
        areas = 30 + 220 * counts / counts.max()
        axes.scatter(said, right, s=areas, color=BLUE, zorder=3, label="model")
        for entry in found:
            axes.annotate(
                str(entry.n),
                (entry.probability, entry.accuracy),
                xytext=(12, -18 if entry.accuracy > 0.1 else 12),
                textcoords="offset points",
                ha="center",
                fontsize=10,
                color=GREY,
            )
        axes.set(xlim=(0, 1.03), ylim=(0, 1.05), aspect="equal")
        axes.set_xlabel("probability of the answer")
        axes.set_ylabel("share that is right")
        axes.legend(loc="upper left", markerscale=0.6)
        axes.set_title("reliability (numbers: images)")
        return png(figure)


def roc(
    class_index: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
) -> bytes:
    """One curve a class against the rest; of many classes those with the smallest areas.

    Classes for which a curve is not defined are left out.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    areas = {
        index: float(roc_auc_score(class_index == index, probabilities[:, index]))
        for index in range(len(labels))
        if 0 < int((class_index == index).sum()) < len(class_index)
    }
    drawn = sorted(sorted(areas, key=lambda index: areas[index])[:_MAX_CURVES])
    what = "one class against the rest"
    if len(areas) > len(drawn):
        what += f"\n({len(drawn)} of {len(areas)} classes: the smallest areas)"
    with style():
        figure = Figure(figsize=(5.4, 5.4))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ls=":", color=GREY, lw=1.2, label="chance (0.500)")
        for index in drawn:
            # Colour and dash go with the class, whichever others are drawn.
            colour = _COLOURS[index % len(_COLOURS)]
            alarms, hits, _ = roc_curve(class_index == index, probabilities[:, index])
            name = f"{shortened(labels[index])} ({areas[index]:.3f})"
            dash = _DASHES[index % len(_DASHES)]
            axes.plot(alarms, hits, dash, color=colour, lw=2, label=name)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        axes.set_xlabel("false alarms (share of the others)")
        axes.set_ylabel("found (share of the class)")
        axes.legend(loc="lower right", fontsize=10, title="area under the curve")
        axes.set_title(what)
        return png(figure)


# -- labels and pictures --------------------------------------------------------------------------
def shortened(label: str) -> str:
    """A label that fits beside a figure."""
    return label if len(label) <= _MAX_LABEL else f"{label[: _MAX_LABEL - 1]}…"


def sample_grid(
    images: Sequence[NDArray[np.uint8]],
    titles: Sequence[str],
    is_right: Sequence[bool],
) -> bytes:
    """Pictures in rows, each with a line above it.

    Args:
        images: (h, w, 3) each, RGB in [0, 255].
        is_right: marks each line with a tick in blue or a cross in orange.
    """
    n_columns = max(1, min(_GRID_COLUMNS, len(images)))
    n_rows = max(1, -(-len(images) // n_columns))
    with style():
        figure = Figure(figsize=(2.1 * n_columns, 2.45 * n_rows))
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for place, (image, line) in enumerate(zip(images, titles, strict=True)):
            axes = grid.flat[place]
            axes.imshow(image, interpolation="nearest")
            mark, colour = ("✓", BLUE) if is_right[place] else ("✗", ORANGE)
            axes.set_title(f"{mark} {line}", fontsize=9, color=colour, pad=3)
        return png(figure)

"""Masks as PNG bytes: outlines of truth and answer in pictures, and how Dice is spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from pipelines.plots.figures import BLUE, GREY, png, style

_COLUMNS = 4
#: On mucosa, skin and steel alike; the dash says the same as the colour.
_TRUE, _FOUND = "#FFFFFF", "#00E5FF"


class Outlined(NamedTuple):
    """A picture, (h, w, 3) in [0, 255], and two masks of it, (h, w)."""

    picture: NDArray[np.uint8]
    true: NDArray[np.bool_]
    found: NDArray[np.bool_]


def mask_sheet(shown: Sequence[Outlined], titles: Sequence[str]) -> bytes:
    """Pictures in rows, each with a line above it: truth as a white line, the answer dashed.

    Args:
        shown: at least one.
        titles: of each.
    """
    n_columns = max(1, min(_COLUMNS, len(shown)))
    n_rows = -(-len(shown) // n_columns)
    with style():
        figure = Figure(figsize=(2.4 * n_columns, 2.25 * n_rows + 0.4))
        grid = figure.subplots(n_rows, n_columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (picture, true, found), title in zip(grid.flat, shown, titles, strict=False):
            axes.imshow(picture, interpolation="nearest")
            for mask, colour, dash in ((true, _TRUE, "-"), (found, _FOUND, "--")):
                if mask.any() and not mask.all():
                    axes.contour(
                        mask.astype(np.float32),
                        [0.5],
                        colors=[colour],
                        linestyles=[dash],
                        linewidths=1.4,
                    )
            axes.set_title(title, fontsize=9, pad=3)
        legend = figure.legend(
            handles=[
                Line2D([], [], color=_TRUE, linestyle="-", label="truth"),
                Line2D([], [], color=_FOUND, linestyle="--", label="answer"),
            ],
            loc="outside lower center",
            ncols=2,
            frameon=True,
        )
        legend.get_frame().set_facecolor(GREY)
        for text in legend.get_texts():
            text.set_color("white")
        return png(figure)


def dice_histogram(values: NDArray[np.float64]) -> bytes:
    """How many pictures have which Dice, (n,) in [0, 1], with the mean and the middle one."""
    with style():
        figure = Figure(figsize=(6, 3.4))
        axes = figure.subplots()
        axes.hist(values, bins=np.linspace(0, 1, 21).tolist(), color=BLUE)
        for at, dash, name in ((values.mean(), "-", "mean"), (np.median(values), "--", "median")):
            axes.axvline(float(at), color="black", linestyle=dash, label=f"{name} {at:.2f}")
        axes.set_xlabel("Dice of a picture")
        axes.set_ylabel("pictures")
        axes.legend()
        return png(figure)

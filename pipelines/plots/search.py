"""A search at a glance: accuracy against latency of all that was asked, and how rewards grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from pipelines.config.search import Controller
from pipelines.plots.figures import BLUE, GREEN, GREY, ORANGE, png, style

#: Sign, dash and colour go with the controller, whichever others are drawn.
_LOOKS = dict(
    zip(
        get_args(Controller),
        (("o", "-", BLUE), ("s", "--", ORANGE), ("^", "-.", GREEN), ("x", ":", GREY)),
        strict=True,
    )
)
#: Candidates of a mean that moves along.
WINDOW = 50
_BLACK, _YELLOW = "#000000", "#E69F00"
#: Words upon many signs are read by a seam of white.
_SEAM = (withStroke(linewidth=2.5, foreground="white"),)
#: Points above a star at which its number stands: neighbours do not share one.
_HEIGHTS = (6, 15, 24)


@dataclass(frozen=True, slots=True)
class Spot:
    """A network in a figure.

    Attributes:
        accuracy: of the val split, in [0, 1].
        ratio: latency as a multiple of the reference's.
        name: for a person; empty where it has none.
    """

    accuracy: float
    ratio: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """A network whose latency was measured twice.

    Attributes:
        name: for a person.
        accuracy: of the val split, in [0, 1].
        ratios: of both measurements, that of the search first.
    """

    name: str
    accuracy: float
    ratios: tuple[float, float]


def front_figure(
    asked: Mapping[Controller, Sequence[Spot]],
    elites: Sequence[Again],
    baselines: Sequence[Spot],
    target: float | None,
    title: str,
) -> bytes:
    """Accuracy against latency: what each controller asked, what was measured again, and the bases.

    Args:
        asked: by controller.
        elites: drawn where they were measured again, with a line to where the search had seen
            them; numbered in this order.
        baselines: named in the figure.
        target: the reward's, as a share of the reference; None where it is in ms.
    """
    with style():
        # A line of names is a fifth of an inch; two columns of them.
        figure = Figure(figsize=(9, 5.4 + 0.2 * -(-len(elites) // 2)))
        axes = figure.subplots()
        for controller, spots in asked.items():
            sign, _, colour = _LOOKS[controller]
            axes.plot(
                [spot.ratio for spot in spots],
                [spot.accuracy for spot in spots],
                sign,
                mec=colour,
                mfc="none",
                ms=4.5,
                alpha=0.45,
                label=f"{controller}, {len(spots)} networks",
                zorder=1,
            )
        if target is not None:
            axes.axvline(target, color=GREY, lw=1, ls="--", label=f"target {target:g}", zorder=0)
        _baselines(axes, baselines)
        _elites(axes, elites)
        axes.set_xlim(left=0)
        axes.set_xlabel("latency, share of the reference's")
        axes.set_ylabel("accuracy, val split")
        _legend(axes)
        if elites:
            figure.supxlabel(_names(elites), x=0.02, ha="left", fontsize=9, family="monospace")
        figure.suptitle(title)
        return png(figure)


def _baselines(axes: Axes, baselines: Sequence[Spot]) -> None:
    for spot in baselines:
        axes.plot(spot.ratio, spot.accuracy, "D", mec=_BLACK, mfc=_YELLOW, ms=7, zorder=4)
        axes.annotate(
            spot.name,
            (spot.ratio, spot.accuracy),
            xytext=(7, -4),
            textcoords="offset points",
            fontsize=9,
            path_effects=_SEAM,
            zorder=5,
        )


def _elites(axes: Axes, elites: Sequence[Again]) -> None:
    by_ratio = sorted(range(len(elites)), key=lambda index: elites[index].ratios[1])
    for place, index in enumerate(by_ratio):
        each = elites[index]
        before, again = each.ratios
        axes.plot([before, again], [each.accuracy] * 2, color=_BLACK, lw=1.2, zorder=2)
        axes.plot(before, each.accuracy, "|", color=_BLACK, ms=7, zorder=2)
        label = None if place else "measured again (bar: while searching)"
        axes.plot(again, each.accuracy, "*", mec=_BLACK, mfc=_YELLOW, ms=9, zorder=3, label=label)
        axes.annotate(
            str(index + 1),
            (again, each.accuracy),
            xytext=(0, _HEIGHTS[place % len(_HEIGHTS)]),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            path_effects=_SEAM,
            zorder=5,
        )


def _names(elites: Sequence[Again]) -> str:
    """In two columns, read downwards."""
    lines = [
        f"{number:2}  {each.name}, {each.accuracy:.3f}, {each.ratios[0]:.2f} → {each.ratios[1]:.2f}"
        for number, each in enumerate(elites, start=1)
    ]
    n_rows = -(-len(lines) // 2)
    left, right = lines[:n_rows], lines[n_rows:] + [""] * (2 * n_rows - len(lines))
    width = max(len(line) for line in left) + 3
    return "\n".join(f"{a:{width}}{b}".rstrip() for a, b in zip(left, right, strict=True))


def reward_figure(
    rewards: Mapping[Controller, Sequence[Sequence[float | None]]],
    title: str,
    baseline: float | None = None,
) -> bytes:
    """The best reward so far, and the mean of the last `WINDOW`, by number of candidates.

    Args:
        rewards: by controller, one sequence a seed, in the order of the candidates; None where one
            has none. Of several seeds the mean is drawn, and a band from the least to the most.
        baseline: the best reward that no search is needed for.
    """
    with style():
        figure = Figure(figsize=(9, 4.2))
        left, right = figure.subplots(1, 2, sharey=True)
        for controller, seeds in rewards.items():
            _, dash, colour = _LOOKS[controller]
            n = min(len(seed) for seed in seeds)
            values = np.array([seed[:n] for seed in seeds], dtype=np.float64)
            for axes, curves in ((left, _best(values)), (right, _moving(values))):
                numbers = np.arange(1, n + 1)
                axes.plot(
                    numbers, curves.mean(axis=0), dash, color=colour, lw=1.8, label=controller
                )
                if len(seeds) > 1:
                    low, high = curves.min(axis=0), curves.max(axis=0)
                    axes.fill_between(numbers, low, high, color=colour, alpha=0.15, lw=0)
        for axes, heading in ((left, "best so far"), (right, f"mean of the last {WINDOW}")):
            if baseline is not None:
                axes.axhline(baseline, color=_BLACK, lw=1, ls=(0, (1, 3)), label="best baseline")
            axes.set_xlabel("candidates")
            axes.set_title(heading, fontsize=12)
        left.set_ylabel("reward")
        _legend(left)
        n_seeds = max((len(seeds) for seeds in rewards.values()), default=0)
        bands = f" (bands: {n_seeds} seeds)" if n_seeds > 1 else ""
        figure.suptitle(f"{title}{bands}")
        return png(figure)


def _legend(axes: Axes) -> None:
    """Where there is something to tell."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=10, loc="lower right")


def _best(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds, n) the highest so far; before the first reward nothing."""
    found: NDArray[np.float64] = np.fmax.accumulate(values, axis=1)
    return found


def _moving(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds, n) means of the last `WINDOW`, of fewer at the beginning."""
    known = ~np.isnan(values)
    sums = np.cumsum(np.where(known, values, 0.0), axis=1)
    counts = np.cumsum(known, axis=1)
    sums[:, WINDOW:], counts[:, WINDOW:] = (
        each[:, WINDOW:] - each[:, :-WINDOW] for each in (sums.copy(), counts.copy())
    )
    found: NDArray[np.float64] = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return found

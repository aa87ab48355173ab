"""Many networks at a glance: how accurate for how long, and what multiply-adds tell of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipelines.plots.figures import BLUE, GREY, ORANGE, png, style

#: Sign and colour of each precision.
_SIGNS = {"fp32": ("o", BLUE), "int8": ("s", ORANGE)}


@dataclass(frozen=True, slots=True)
class Point:
    """One file of one network.

    Attributes:
        title: for a person.
        precision: ``fp32`` or ``int8``.
        accuracy: of the test split, in [0, 1].
        low: of its 95 % interval.
        high: of its 95 % interval.
        ms: latency.
        multiply_adds: of one picture, in millions.
        is_on_front: whether no other is better than it.
    """

    title: str
    precision: str
    accuracy: float
    low: float
    high: float
    ms: float
    multiply_adds: float
    is_on_front: bool


def board_figure(
    points: Sequence[Point], correlation: Mapping[str, float | None], title: str
) -> bytes:
    """Accuracy against latency, the front numbered; and latency against multiply-adds.

    Args:
        points: those on the front are numbered in this order.
        correlation: rank correlation of multiply-adds and latency, by precision.
    """
    front = [point for point in points if point.is_on_front]
    with style():
        figure = Figure(figsize=(9, 4.6 + 0.22 * len(front)))
        left, right = figure.subplots(1, 2)
        for precision, (sign, colour) in _SIGNS.items():
            own = [point for point in points if point.precision == precision]
            for point in own:
                left.plot([point.ms] * 2, [point.low, point.high], color=colour, lw=1, alpha=0.35)
                filled = colour if point.is_on_front else "white"
                left.plot(point.ms, point.accuracy, sign, mec=colour, mfc=filled, zorder=3)
            known = correlation.get(precision)
            label = precision if known is None else f"{precision}, rank correlation {known:.2f}"
            right.plot(
                [point.multiply_adds for point in own],
                [point.ms for point in own],
                sign,
                mec=colour,
                mfc="white",
                label=label,
            )
        _staircase(left, points)
        for number, point in enumerate(front, start=1):
            left.annotate(
                str(number),
                (point.ms, point.accuracy),
                xytext=(5, 5),
                textcoords="offset points",
                fontsize=10,
            )
        left.set_xlabel("ms, one picture on one thread")
        left.set_ylabel("accuracy, test split, 95 % interval")
        left.set_xlim(left=0)
        right.set_xlabel("multiply-adds, millions")
        right.set_ylabel("ms")
        right.set_xlim(left=0)
        right.set_ylim(bottom=0)
        right.legend(fontsize=10)
        if front:
            names = "\n".join(f"{n}  {point.title}" for n, point in enumerate(front, start=1))
            figure.supxlabel(names, x=0.02, ha="left", fontsize=10)
        figure.suptitle(title)
        return png(figure)


def _staircase(axes: Axes, points: Sequence[Point]) -> None:
    """The best accuracy that is to be had within so many ms, of those that may be shipped."""
    front = sorted((point.ms, point.accuracy) for point in points if point.is_on_front)
    if front:
        ms, accuracy = zip(*front, strict=True)
        best = np.maximum.accumulate(accuracy)
        axes.step(ms, best, where="post", color=GREY, lw=1, ls="--")

"""What a network costs, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from pipelines.plots.figures import BLUE, GREEN, GREY, ORANGE, png, style

_COLOURS = (ORANGE, BLUE, GREEN, "#CC79A7", GREY)


def cost_by_layer(
    multiply_adds: Mapping[str, Sequence[float]],
    parameters: Mapping[str, Sequence[float]],
    memory: Sequence[float],
    title: str,
) -> bytes:
    """Three panels: multiply-adds and parameters a layer, and the activations held at each step.

    Args:
        multiply_adds: by kind of layer, (n_layers,) in millions, 0 where a layer is of another.
        parameters: as ``multiply_adds``, in thousands.
        memory: values held at each step, in thousands.
    """
    with style():
        figure = Figure(figsize=(8, 7))
        top, middle, bottom = figure.subplots(3, 1)
        for axes, values, unit in (
            (top, multiply_adds, "multiply-adds, millions"),
            (middle, parameters, "parameters, thousands"),
        ):
            for (kind, heights), colour in zip(values.items(), _COLOURS, strict=False):
                axes.bar(np.arange(len(heights)), heights, color=colour, label=kind, width=0.9)
            axes.set_ylabel(unit)
            axes.set_xlabel("layer")
        top.legend(ncols=2, fontsize=9)
        bottom.step(np.arange(len(memory)), memory, where="mid", color=BLUE)
        bottom.set_ylabel("values held, thousands")
        bottom.set_xlabel("step")
        figure.suptitle(title)
        return png(figure)
